"""The drawn breeds: the typed traits of `breeds.toml`, from which everything else follows.

The images are caricatures, but of the right things: build, head, ears, tail, coat and colour are what a judge of dogs
looks at. Lengths are in units of a large dog's trunk; head measures in units of the skull's radius.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255, under white light."""


Pattern = Literal[
    "saddle", "tan_points", "mask", "dark_ears", "white_trim", "underside", "spots", "patches", "merle", "brindle",
    "shading",
]  # fmt: skip
"""How a second colour lies on the first: breeders' terms; `coats.py` says where each one goes."""

EarKind = Literal["pricked", "bat", "dropped", "button", "rose"]
TailKind = Literal["curled", "sickle", "plume", "otter", "whip", "pompon", "docked"]
CoatKind = Literal["smooth", "double", "feathered", "wire", "curly"]


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


def _breeds() -> tuple[Breed, ...]:
    table = tomllib.loads(Path(__file__).with_name("breeds.toml").read_text(encoding="utf-8"))

    def colour(given: str | list[int]) -> Colour:
        red, green, blue = table["colours"][given] if isinstance(given, str) else given
        return red, green, blue

    def colourway(base: str | list[int], markings: tuple[Any, ...] = (), share: float = 1.0) -> Colourway:
        return Colourway(colour(base), tuple(Marking(pattern, colour(of)) for pattern, of in markings), share)

    return tuple(
        Breed(
            breed["name"],
            Build(**breed["build"]),
            Head(**breed["head"]),
            Ears(**breed["ears"]),
            Tail(**breed["tail"]),
            Coat(**breed["coat"]),
            tuple(colourway(**way) for way in breed["colourways"]),
        )
        for breed in table["breeds"]
    )


BREEDS = _breeds()
