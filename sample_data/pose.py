"""What a dog does and from where it is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .solids import Floats

Generator = np.random.Generator
LegAngles = tuple[float, float, float]
"""Upper, middle and lower segment against the plumb line, in degrees; positive swings forward."""


@dataclass(frozen=True)
class Stance:
    """What a dog does with its legs; angles in degrees."""

    share: float  # how common it is
    neck: tuple[float, float]  # above the horizon
    foreleg: LegAngles = (-18.0, 4.0, 12.0)
    hindleg: LegAngles = (24.0, -34.0, 6.0)  # a Z: knee forward, hock back
    jitter: float = 4.0  # each angle's standard deviation
    stride: float = 0.0  # how far diagonal legs swing together

    def legs(self, rng: Generator) -> tuple[Floats, Floats]:
        """Sample the angles [2, 3] of the left and right forelegs, and of the hind legs."""
        phase = rng.uniform(0, 2 * np.pi) + np.array([[0.0], [np.pi]])
        swing, lift = np.sin(phase), np.maximum(0.0, np.cos(phase))
        fore = self.foreleg + self.stride * np.hstack([swing, swing - 0.9 * lift, 0.8 * swing - 1.9 * lift])
        lift = np.maximum(0.0, -np.cos(phase))
        hind = self.hindleg - self.stride * np.hstack([swing - 0.3 * lift, swing + lift, swing + 0.4 * lift])
        return fore + rng.normal(0, self.jitter, (2, 3)), hind + rng.normal(0, self.jitter, (2, 3))


STANCES = (
    Stance(0.52, (44, 64)),  # stands
    Stance(0.28, (32, 55), jitter=1.0, stride=20.0),  # walks
    Stance(0.16, (60, 80), (-14.0, 4.0, 14.0), (84.0, -52.0, 84.0), jitter=2.0),  # sits
    Stance(0.04, (48, 68), (-58.0, 82.0, 86.0), (80.0, -76.0, 86.0), jitter=0.0),  # lies
)


@dataclass(frozen=True)
class Pose:
    """All angles in degrees; azimuths: 0 points right, 90 at the viewer, 180 left."""

    forelegs: Floats  # [left, right]
    hindlegs: Floats
    neck: float  # above the horizon
    azimuth: float  # of the trunk
    elevation: float  # that the viewer looks down
    head_azimuth: float
    head_pitch: float  # up is positive
    tail_lift: float  # added to the breed's carriage

    def view(self) -> Floats:
        """Right, up and towards the viewer in the dog's frame (x to its head, y to its left, z up) [3, 3]."""
        turn, look = np.radians(self.azimuth), np.radians(self.elevation)
        level, zenith = np.array([np.sin(turn), -np.cos(turn), 0.0]), np.array([0.0, 0.0, 1.0])
        up, towards = np.cos(look) * zenith - np.sin(look) * level, np.cos(look) * level + np.sin(look) * zenith
        return np.stack([np.array([np.cos(turn), np.sin(turn), 0.0]), up, towards])


def sample_pose(rng: Generator) -> Pose:
    """Any stance, seen from either side, with a head that looks ahead or turns towards the viewer."""
    stance = STANCES[rng.choice(len(STANCES), p=[stance.share for stance in STANCES])]
    forelegs, hindlegs = stance.legs(rng)
    away = rng.uniform(-10, 20) if rng.random() < 0.7 else rng.uniform(20, 45)
    azimuth = float(away if rng.random() < 0.5 else 180 - away)
    return Pose(
        forelegs,
        hindlegs,
        neck=rng.uniform(*stance.neck),
        azimuth=azimuth,
        elevation=rng.uniform(2, 16),
        head_azimuth=azimuth + float(np.clip(rng.uniform(-0.1, 0.7) * (90 - azimuth), -75, 75)),
        head_pitch=rng.uniform(-14, 8),
        tail_lift=rng.normal(0, 14),
    )
