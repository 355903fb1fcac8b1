"""The drawn breeds: one table of typed traits, from which everything else follows.

The pictures are caricatures, but of the right things: build, head, ears, tail, coat and colour are what a judge of
dogs looks at. Several breeds share their colours on purpose (four of them come in black, five in gold or red), and most
come in several, so that colour alone does not tell them apart.

Lengths are in units of a large dog's trunk; head measures in units of the skull's radius.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255, under white light."""


class Pattern(Enum):
    """How a second colour lies on the first. Breeders' terms; `coats.py` says where each one goes."""

    SADDLE = auto()  # a blanket over back and flanks
    TAN_POINTS = auto()  # brows, sides of the muzzle, chest, lower legs
    MASK = auto()  # the muzzle and around the eyes
    DARK_EARS = auto()
    WHITE_TRIM = auto()  # collar, chest, blaze, feet, tip of the tail
    UNDERSIDE = auto()  # cheeks, throat, belly, inside of the legs
    SPOTS = auto()  # many small round ones
    PATCHES = auto()  # few large ones
    MERLE = auto()  # ragged blotches
    BRINDLE = auto()  # dark stripes down the flanks
    SHADING = auto()  # feathering and underside lighter, gradually


class EarKind(Enum):
    PRICKED = auto()
    BAT = auto()  # upright, broad, round-tipped
    DROPPED = auto()
    BUTTON = auto()  # upright at the base, tip folded forward
    ROSE = auto()  # small, folded back


class TailKind(Enum):
    CURLED = auto()  # over the back
    SICKLE = auto()
    PLUME = auto()
    OTTER = auto()  # thick, straight, level with the back
    WHIP = auto()  # thin, low
    POMPON = auto()
    DOCKED = auto()


class CoatKind(Enum):
    SMOOTH = auto()
    DOUBLE = auto()  # stands off the body
    FEATHERED = auto()  # hangs
    WIRE = auto()
    CURLY = auto()


@dataclass(frozen=True)
class Marking:
    pattern: Pattern
    colour: Colour


@dataclass(frozen=True)
class Colourway:
    base: Colour
    markings: tuple[Marking, ...] = ()
    share: float = 1.0  # how common it is within the breed, against the others


@dataclass(frozen=True)
class Build:
    trunk: float = 1.0  # point of shoulder to rump
    chest: float = 0.42  # depth
    width: float = 0.72  # of the depth
    tuck: float = 0.4  # 0: level belly, 1: a greyhound's
    leg: float = 0.44  # brisket to ground
    bone: float = 0.062  # radius of the forearm
    neck: float = 0.30
    neck_thickness: float = 0.13


@dataclass(frozen=True)
class Head:
    skull: float = 0.165  # radius: the unit of the other measures of the head
    width: float = 0.92
    muzzle_length: float = 0.95
    muzzle_depth: float = 0.55
    muzzle_width: float = 0.50
    taper: float = 0.8  # tip of the muzzle to its root
    jowls: float = 0.0
    beard: float = 0.0
    brows: float = 0.0
    topknot: float = 0.0
    eye: float = 0.15


@dataclass(frozen=True)
class Ears:
    kind: EarKind
    length: float  # of the skull's radius
    width: float


@dataclass(frozen=True)
class Tail:
    kind: TailKind
    length: float
    thickness: float = 0.045


@dataclass(frozen=True)
class Coat:
    kind: CoatKind
    length: float  # 0: a doberman's; 1: a skirt
    skirt: float = 0.0  # how far down the legs the belly's hair hangs


@dataclass(frozen=True)
class Breed:
    name: str
    build: Build
    head: Head
    ears: Ears
    tail: Tail
    coat: Coat
    colourways: tuple[Colourway, ...]


BLACK = (36, 34, 37)
WHITE = (236, 231, 222)
CREAM = (229, 205, 163)
GOLD = (208, 152, 83)
RED = (172, 96, 46)
MAHOGANY = (126, 58, 30)
CHOCOLATE = (88, 53, 36)
FAWN = (205, 163, 112)
TAN = (184, 112, 54)
BLUE_GREY = (104, 110, 122)
APRICOT = (222, 165, 110)
LIVER = (112, 66, 44)

WHITE_TRIM = Marking(Pattern.WHITE_TRIM, WHITE)
WHITE_UNDERSIDE = Marking(Pattern.UNDERSIDE, WHITE)
BLACK_SADDLE = Marking(Pattern.SADDLE, BLACK)
TAN_MARKS = Marking(Pattern.TAN_POINTS, TAN)
BLACK_EARS = Marking(Pattern.DARK_EARS, BLACK)
BLACK_MASK = Marking(Pattern.MASK, BLACK)
BRINDLED = Marking(Pattern.BRINDLE, (52, 38, 30))

BLACK_AND_TAN = Colourway(BLACK, (TAN_MARKS,))
LIVER_AND_TAN = Colourway(CHOCOLATE, (TAN_MARKS,))
SOLID_BLACK = Colourway(BLACK)

BREEDS: tuple[Breed, ...] = (
    Breed(
        "Labrador_retriever",
        Build(chest=0.44, width=0.78, tuck=0.2, leg=0.42, bone=0.070, neck_thickness=0.15),
        Head(skull=0.175, width=1.0, muzzle_length=0.85, muzzle_depth=0.62, muzzle_width=0.60, taper=0.9, jowls=0.25),
        Ears(EarKind.DROPPED, 1.0, 0.62),
        Tail(TailKind.OTTER, 0.62, 0.062),
        Coat(CoatKind.SMOOTH, 0.15),
        (Colourway(CHOCOLATE, share=3.0), Colourway(CREAM, (Marking(Pattern.SHADING, WHITE),), share=1.5), SOLID_BLACK),
    ),
    Breed(
        "Scottish_terrier",
        Build(trunk=0.82, chest=0.40, width=0.80, tuck=0.0, leg=0.20, bone=0.070, neck=0.22, neck_thickness=0.15),
        Head(
            skull=0.165,
            width=0.85,
            muzzle_length=1.35,
            muzzle_depth=0.60,
            muzzle_width=0.56,
            taper=0.95,
            beard=1.0,
            brows=1.0,
            eye=0.11,
        ),
        Ears(EarKind.PRICKED, 0.95, 0.42),
        Tail(TailKind.SICKLE, 0.36, 0.055),
        Coat(CoatKind.WIRE, 0.8, skirt=0.65),
        (Colourway(BLACK, share=3.0), Colourway((214, 176, 122)), Colourway((92, 78, 70), (BRINDLED,))),
    ),
    Breed(
        "Dalmatian",
        Build(chest=0.42, width=0.66, tuck=0.55, leg=0.54, bone=0.056, neck=0.36, neck_thickness=0.115),
        Head(skull=0.155, width=0.95, muzzle_length=1.05, muzzle_depth=0.58, muzzle_width=0.52, taper=0.85, jowls=0.1),
        Ears(EarKind.DROPPED, 1.0, 0.58),
        Tail(TailKind.WHIP, 0.72, 0.036),
        Coat(CoatKind.SMOOTH, 0.0),
        (
            Colourway(WHITE, (Marking(Pattern.SPOTS, BLACK), BLACK_EARS)),
            Colourway(WHITE, (Marking(Pattern.SPOTS, BLACK),)),
            Colourway(WHITE, (Marking(Pattern.SPOTS, LIVER), Marking(Pattern.DARK_EARS, LIVER))),
        ),
    ),
    Breed(
        "Pembroke_welsh_corgi",
        Build(trunk=1.0, chest=0.38, width=0.78, tuck=0.15, leg=0.17, bone=0.062, neck=0.24, neck_thickness=0.14),
        Head(skull=0.175, width=1.05, muzzle_length=0.85, muzzle_depth=0.46, muzzle_width=0.46, taper=0.62),
        Ears(EarKind.PRICKED, 1.25, 0.58),
        Tail(TailKind.DOCKED, 0.07, 0.06),
        Coat(CoatKind.DOUBLE, 0.35),
        (
            Colourway((200, 124, 58), (WHITE_TRIM, WHITE_UNDERSIDE), share=3.0),
            Colourway(GOLD, (WHITE_TRIM, WHITE_UNDERSIDE)),
            Colourway(BLACK, (TAN_MARKS, WHITE_TRIM)),
        ),
    ),
    Breed(
        "Pug",
        Build(trunk=0.74, chest=0.42, width=0.95, tuck=0.05, leg=0.32, bone=0.060, neck=0.20, neck_thickness=0.17),
        Head(
            skull=0.205,
            width=1.05,
            muzzle_length=0.22,
            muzzle_depth=0.62,
            muzzle_width=0.72,
            taper=0.95,
            jowls=0.3,
            eye=0.23,
        ),
        Ears(EarKind.BUTTON, 0.62, 0.50),
        Tail(TailKind.CURLED, 0.42, 0.062),
        Coat(CoatKind.SMOOTH, 0.05),
        (
            Colourway((217, 180, 130), (BLACK_MASK, BLACK_EARS), share=3.0),
            Colourway((226, 200, 160), (BLACK_MASK, BLACK_EARS), share=3.0),
            SOLID_BLACK,
        ),
    ),
    Breed(
        "German_shepherd_dog",
        Build(trunk=1.06, chest=0.44, width=0.66, tuck=0.45, leg=0.46, bone=0.062, neck=0.34, neck_thickness=0.145),
        Head(skull=0.165, width=0.92, muzzle_length=1.20, muzzle_depth=0.54, muzzle_width=0.48, taper=0.75),
        Ears(EarKind.PRICKED, 1.30, 0.55),
        Tail(TailKind.PLUME, 0.70, 0.065),
        Coat(CoatKind.DOUBLE, 0.45),
        (
            Colourway((184, 124, 66), (BLACK_SADDLE, BLACK_MASK), share=3.0),
            Colourway((206, 160, 104), (Marking(Pattern.SADDLE, (44, 38, 36)), BLACK_MASK), share=3.0),
            SOLID_BLACK,
        ),
    ),
    Breed(
        "Poodle",
        Build(trunk=0.80, chest=0.38, width=0.74, tuck=0.45, leg=0.50, bone=0.062, neck=0.36, neck_thickness=0.125),
        Head(
            skull=0.150, width=0.88, muzzle_length=1.30, muzzle_depth=0.42, muzzle_width=0.40, taper=0.75, topknot=1.0
        ),
        Ears(EarKind.DROPPED, 1.35, 0.80),
        Tail(TailKind.POMPON, 0.34, 0.035),
        Coat(CoatKind.CURLY, 0.8),
        (Colourway((244, 241, 236), share=3.0), SOLID_BLACK, Colourway(APRICOT)),
    ),
    Breed(
        "Dachshund",
        Build(trunk=1.20, chest=0.32, width=0.80, tuck=0.15, leg=0.15, bone=0.050, neck=0.28, neck_thickness=0.11),
        Head(skull=0.145, width=0.88, muzzle_length=1.40, muzzle_depth=0.48, muzzle_width=0.46, taper=0.68),
        Ears(EarKind.DROPPED, 1.40, 0.72),
        Tail(TailKind.WHIP, 0.60, 0.036),
        Coat(CoatKind.SMOOTH, 0.05),
        (Colourway(RED, share=3.0), BLACK_AND_TAN, LIVER_AND_TAN),
    ),
    Breed(
        "Golden_retriever",
        Build(chest=0.45, width=0.76, tuck=0.15, leg=0.42, bone=0.068, neck=0.32, neck_thickness=0.165),
        Head(skull=0.175, width=1.0, muzzle_length=0.95, muzzle_depth=0.58, muzzle_width=0.56, taper=0.9, jowls=0.15),
        Ears(EarKind.DROPPED, 1.0, 0.62),
        Tail(TailKind.PLUME, 0.70, 0.075),
        Coat(CoatKind.FEATHERED, 0.8, skirt=0.24),
        (
            Colourway(GOLD, (Marking(Pattern.SHADING, CREAM),), share=4.0),
            Colourway(CREAM, (Marking(Pattern.SHADING, WHITE),)),
            Colourway((186, 116, 56), (Marking(Pattern.SHADING, CREAM),)),
        ),
    ),
    Breed(
        "French_bulldog",
        Build(trunk=0.70, chest=0.42, width=1.0, tuck=0.3, leg=0.27, bone=0.070, neck=0.18, neck_thickness=0.19),
        Head(
            skull=0.210,
            width=1.05,
            muzzle_length=0.26,
            muzzle_depth=0.66,
            muzzle_width=0.78,
            taper=0.95,
            jowls=0.6,
            eye=0.18,
        ),
        Ears(EarKind.BAT, 0.95, 0.44),
        Tail(TailKind.DOCKED, 0.06, 0.05),
        Coat(CoatKind.SMOOTH, 0.0),
        (
            Colourway((96, 72, 56), (BRINDLED, WHITE_TRIM), share=4.0),
            Colourway(FAWN, (BLACK_MASK,)),
            Colourway(WHITE, (Marking(Pattern.PATCHES, (62, 50, 44)),)),
            Colourway(BLUE_GREY),
        ),
    ),
    Breed(
        "Schipperke",
        Build(trunk=0.72, chest=0.38, width=0.76, tuck=0.4, leg=0.36, bone=0.050, neck=0.24, neck_thickness=0.165),
        Head(skull=0.155, width=1.0, muzzle_length=0.80, muzzle_depth=0.42, muzzle_width=0.40, taper=0.55),
        Ears(EarKind.PRICKED, 0.92, 0.46),
        Tail(TailKind.DOCKED, 0.05, 0.06),
        Coat(CoatKind.DOUBLE, 0.75),
        (Colourway(BLACK, share=6.0), Colourway(CREAM)),
    ),
    Breed(
        "Australian_shepherd",
        Build(trunk=0.98, chest=0.42, width=0.74, tuck=0.25, leg=0.42, bone=0.058, neck=0.30, neck_thickness=0.155),
        Head(skull=0.165, width=0.95, muzzle_length=0.95, muzzle_depth=0.50, muzzle_width=0.46, taper=0.75),
        Ears(EarKind.BUTTON, 0.85, 0.52),
        Tail(TailKind.DOCKED, 0.10, 0.075),
        Coat(CoatKind.FEATHERED, 0.85, skirt=0.22),
        (
            Colourway((150, 154, 164), (Marking(Pattern.MERLE, BLACK), TAN_MARKS, WHITE_TRIM), share=3.0),
            Colourway(BLACK, (TAN_MARKS, WHITE_TRIM)),
            Colourway((196, 150, 116), (Marking(Pattern.MERLE, MAHOGANY), WHITE_TRIM)),
        ),
    ),
    Breed(
        "Beagle",
        Build(trunk=0.88, chest=0.40, width=0.76, tuck=0.3, leg=0.36, bone=0.060, neck=0.28, neck_thickness=0.125),
        Head(skull=0.165, width=0.96, muzzle_length=0.85, muzzle_depth=0.56, muzzle_width=0.52, taper=0.88, jowls=0.2),
        Ears(EarKind.DROPPED, 1.30, 0.72),
        Tail(TailKind.SICKLE, 0.48, 0.045),
        Coat(CoatKind.SMOOTH, 0.05),
        (
            Colourway((190, 118, 62), (BLACK_SADDLE, WHITE_TRIM, WHITE_UNDERSIDE), share=4.0),
            Colourway((206, 150, 92), (WHITE_TRIM, WHITE_UNDERSIDE)),
        ),
    ),
    Breed(
        "Doberman_pinscher",
        Build(trunk=0.94, chest=0.44, width=0.64, tuck=0.65, leg=0.56, bone=0.056, neck=0.38, neck_thickness=0.115),
        Head(skull=0.150, width=0.86, muzzle_length=1.40, muzzle_depth=0.56, muzzle_width=0.46, taper=0.82),
        Ears(EarKind.PRICKED, 1.35, 0.36),
        Tail(TailKind.DOCKED, 0.08, 0.04),
        Coat(CoatKind.SMOOTH, 0.0),
        (BLACK_AND_TAN, LIVER_AND_TAN, Colourway(BLUE_GREY, (TAN_MARKS,))),
    ),
    Breed(
        "Shiba_inu",
        Build(trunk=0.84, chest=0.40, width=0.76, tuck=0.35, leg=0.40, bone=0.056, neck=0.26, neck_thickness=0.15),
        Head(skull=0.175, width=1.08, muzzle_length=0.75, muzzle_depth=0.48, muzzle_width=0.46, taper=0.68, eye=0.12),
        Ears(EarKind.PRICKED, 0.80, 0.50),
        Tail(TailKind.CURLED, 0.62, 0.085),
        Coat(CoatKind.DOUBLE, 0.45),
        (
            Colourway((200, 122, 58), (Marking(Pattern.UNDERSIDE, (240, 224, 200)),)),
            Colourway((218, 164, 100), (WHITE_UNDERSIDE,)),
            Colourway(BLACK, (TAN_MARKS, Marking(Pattern.UNDERSIDE, (226, 206, 180)))),
        ),
    ),
    Breed(
        "Greyhound",
        Build(trunk=1.0, chest=0.44, width=0.56, tuck=1.0, leg=0.58, bone=0.046, neck=0.46, neck_thickness=0.092),
        Head(skull=0.130, width=0.80, muzzle_length=1.80, muzzle_depth=0.56, muzzle_width=0.46, taper=0.62),
        Ears(EarKind.ROSE, 0.75, 0.36),
        Tail(TailKind.WHIP, 0.80, 0.030),
        Coat(CoatKind.SMOOTH, 0.0),
        (
            Colourway((176, 128, 84), (BRINDLED,)),
            Colourway(FAWN),
            SOLID_BLACK,
            Colourway(BLUE_GREY),
            Colourway(WHITE, (Marking(Pattern.PATCHES, (150, 104, 66)),)),
        ),
    ),
)
