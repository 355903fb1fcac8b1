"""The typed traits of `breeds.toml`, from which everything that is drawn follows.

Lengths are in units of a large dog's trunk; head measures in units of the skull's radius.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255, under white light."""


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
    beard: float = 0.0
    topknot: float = 0.0
    eye: float = 0.15


@dataclass(frozen=True)
class Ears:
    root: list[float]  # x, y, z
    spine: list[list[float]]  # from root to tip, of an ear of length 1
    outline: list[float]  # of the width, along the spine
    facing: list[float]
    length: float
    width: float


@dataclass(frozen=True)
class Tail:
    root: float  # degrees above the topline's backward extension
    turn: float  # degrees from root to tip
    profile: list[float]  # of the thickness, from root to tip
    length: float
    thickness: float = 0.045


@dataclass(frozen=True)
class Coat:
    strands: float  # how much their lightness differs
    size: float  # of a strand or curl, in trunks
    fall: float  # how far hair hangs over an outline
    length: float  # 0: a doberman's; 1: a skirt
    skirt: float = 0.0  # how far down the legs the belly's hair hangs
    curls: bool = False


@dataclass(frozen=True)
class Marking:
    """How a second colour lies on the first.

    It covers a point of a part of the body where, in one of the groups of planes (constant, along, |side|, up), each
    is above 0; elsewhere, the constant `elsewhere` counts. Blotches and stripes are added to that.
    """

    colour: Colour
    width: float  # of the border
    parts: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    elsewhere: float = -1.0
    blotches: tuple[float, float] = (0.0, 1.0)  # weight, size in trunks
    stripes: float = 0.0  # weight
    opacity: float = 1.0


Colourway = tuple[Colour, list[Marking]]


@dataclass(frozen=True)
class Breed:
    name: str
    build: Build
    head: Head
    ears: Ears
    tail: Tail
    coat: Coat
    colourways: list[Colourway]


def _read(table: dict[str, Any], traits: dict[str, Any]) -> Breed:
    def colour(given: str | list[int]) -> Colour:
        red, green, blue = table["colours"][given] if isinstance(given, str) else given
        return red, green, blue

    def kind(group: str) -> dict[str, Any]:
        own = dict(traits[group])
        return {**table[group][own.pop("kind")], **own}

    return Breed(
        name=traits["name"],
        build=Build(**traits["build"]),
        head=Head(**traits["head"]),
        ears=Ears(**kind("ears")),
        tail=Tail(**kind("tail")),
        coat=Coat(**kind("coat")),
        colourways=[
            (colour(base), [Marking(colour(of), **table["markings"][name]) for name, of in markings])
            for base, *markings in traits["colourways"]
        ],
    )


_TABLE = tomllib.loads(Path(__file__).with_name("breeds.toml").read_text(encoding="utf-8"))
BREEDS = tuple(_read(_TABLE, traits) for traits in _TABLE["breeds"])
