"""What a dog does and from where it is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .solids import Floats

Stance = Literal["standing", "walking", "running", "sitting", "lying"]
STANCES: tuple[Stance, ...] = get_args(Stance)
Shot = Literal["side", "three_quarter", "portrait"]
SHOTS: tuple[Shot, ...] = get_args(Shot)

LegAngles = tuple[float, float, float]
"""Upper, middle and lower segment against the plumb line, in degrees; positive swings forward."""

# Standing square. A hind leg is a Z: knee forward, hock back.
FORELEG: LegAngles = (-18.0, 4.0, 12.0)
HINDLEG: LegAngles = (24.0, -34.0, 6.0)


@dataclass(frozen=True)
class Pose:
    stance: Stance
    forelegs: tuple[LegAngles, LegAngles]  # left, right
    hindlegs: tuple[LegAngles, LegAngles]
    neck: float  # degrees above the horizon
    head_azimuth: float  # where the muzzle points in the image's plane, degrees: 0 right, 90 at the viewer, 180 left
    head_pitch: float  # degrees, up is positive
    head_tilt: float  # degrees
    tail_lift: float  # degrees added to the breed's carriage
    tail_sway: float  # degrees to the dog's left
    mouth_open: float  # 0 to 1
    ear_lift: float  # degrees


@dataclass(frozen=True)
class Camera:
    azimuth: float  # of the dog's trunk, as head_azimuth
    elevation: float  # degrees the camera looks down

    def axes(self) -> Floats:
        """Right, up and towards the viewer in the dog's frame (x to its head, y to its left, z up) [3, 3]."""
        turn, look = np.radians(self.azimuth), np.radians(self.elevation)
        right = np.array([np.cos(turn), np.sin(turn), 0.0])
        level = np.array([np.sin(turn), -np.cos(turn), 0.0])
        zenith = np.array([0.0, 0.0, 1.0])
        return np.stack(
            [right, np.cos(look) * zenith - np.sin(look) * level, np.cos(look) * level + np.sin(look) * zenith]
        )


def _swung(leg: LegAngles, upper: float, middle: float, lower: float) -> LegAngles:
    return leg[0] + upper, leg[1] + middle, leg[2] + lower


def _step(rng: np.random.Generator, reach: float) -> tuple[tuple[LegAngles, LegAngles], tuple[LegAngles, LegAngles]]:
    """A moment of a trot: diagonal legs swing together, `reach` degrees to either side."""
    phase = rng.uniform(0, 2 * np.pi)
    fore, hind = [], []
    for offset in (0.0, np.pi):
        swing, lift = np.sin(phase + offset), max(0.0, np.cos(phase + offset))
        fore.append(_swung(FORELEG, reach * swing, reach * (swing - 0.9 * lift), reach * (0.8 * swing - 1.9 * lift)))
        swing, lift = np.sin(phase + offset + np.pi), max(0.0, np.cos(phase + offset + np.pi))
        hind.append(_swung(HINDLEG, reach * (swing + 0.3 * lift), reach * (swing - lift), reach * (swing - 0.4 * lift)))
    return (fore[0], fore[1]), (hind[0], hind[1])


def _gallop(rng: np.random.Generator) -> tuple[tuple[LegAngles, LegAngles], tuple[LegAngles, LegAngles]]:
    """Stretched out or gathered, with the two legs of a pair nearly together."""
    stretch = rng.choice([1.0, 0.75, -0.6])
    fore = [_swung(FORELEG, 48 * stretch + d, 52 * stretch + d, 44 * stretch + d) for d in rng.uniform(-9, 9, 2)]
    hind = [_swung(HINDLEG, -46 * stretch + d, -34 * stretch + d, -38 * stretch + d) for d in rng.uniform(-9, 9, 2)]
    return (fore[0], fore[1]), (hind[0], hind[1])


def sample_camera(rng: np.random.Generator, shot: Shot) -> Camera:
    """Either side of the dog, at a person's or a dog's eye level."""
    away = {
        "side": rng.uniform(-10, 20),
        "three_quarter": rng.uniform(24, 46),
        "portrait": rng.uniform(20, 60),
    }[shot]
    return Camera(azimuth=float(away if rng.random() < 0.5 else 180 - away), elevation=float(rng.uniform(2, 16)))


def sample_pose(rng: np.random.Generator, shot: Shot, camera: Camera) -> Pose:
    stance = STANCES[rng.choice(5, p=[0.5, 0.22, 0.08, 0.16, 0.04])]
    if stance == "running" and shot == "portrait":
        stance = "sitting"
    forelegs, hindlegs = (FORELEG, FORELEG), (HINDLEG, HINDLEG)
    neck = rng.uniform(44, 64)
    if stance == "walking":
        forelegs, hindlegs = _step(rng, rng.uniform(14, 26))
        neck = rng.uniform(32, 55)
    elif stance == "running":
        forelegs, hindlegs = _gallop(rng)
        neck = rng.uniform(18, 36)
    elif stance == "sitting":
        spread = rng.uniform(-6, 6)
        forelegs = ((-14.0, 4.0 + spread, 14.0), (-14.0, 4.0 - spread, 14.0))
        hindlegs = ((84.0, -52.0, 84.0), (84.0, -52.0, 84.0))
        neck = rng.uniform(60, 80)
    elif stance == "lying":
        forelegs = ((-58.0, 82.0, 86.0), (-58.0, 82.0, 86.0))
        hindlegs = ((80.0, -76.0, 86.0), (80.0, -76.0, 86.0))
        neck = rng.uniform(48, 68)
    else:
        forelegs = (_swung(FORELEG, *rng.normal(0, 3, 3)), _swung(FORELEG, *rng.normal(0, 3, 3)))
        hindlegs = (_swung(HINDLEG, *rng.normal(0, 4, 3)), _swung(HINDLEG, *rng.normal(0, 4, 3)))

    # The head looks where the body goes, or turns towards the viewer.
    towards = 90 - camera.azimuth
    turn = rng.uniform(-0.1, 0.9 if shot != "side" else 0.6) if rng.random() < 0.75 else 0.0
    azimuth = camera.azimuth + float(np.clip(turn * towards, -75, 75))
    return Pose(
        stance=stance,
        forelegs=forelegs,
        hindlegs=hindlegs,
        neck=float(neck),
        head_azimuth=azimuth,
        head_pitch=float(rng.uniform(-14, 8)),
        head_tilt=float(rng.normal(0, 8)) if rng.random() < 0.6 else 0.0,
        tail_lift=float(rng.normal(0, 14)),
        tail_sway=float(rng.normal(0, 18)),
        mouth_open=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.45 else 0.0,
        ear_lift=float(rng.normal(0, 8)),
    )
