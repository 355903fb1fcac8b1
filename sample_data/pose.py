"""What a dog does and from where it is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .solids import Floats

Generator = np.random.Generator

LegAngles = tuple[float, float, float]
"""Upper, middle and lower segment against the plumb line, in degrees; positive swings forward."""

FORELEG: LegAngles = (-18.0, 4.0, 12.0)
HINDLEG: LegAngles = (24.0, -34.0, 6.0)  # a Z: knee forward, hock back


@dataclass(frozen=True)
class Stance:
    """What a dog does with its legs; angles in degrees."""

    share: float  # how common it is
    neck: tuple[float, float]  # above the horizon
    foreleg: LegAngles = FORELEG
    hindleg: LegAngles = HINDLEG
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


STANCES = {
    "standing": Stance(0.5, (44, 64)),
    "walking": Stance(0.22, (32, 55), jitter=1.0, stride=20.0),
    "running": Stance(0.08, (18, 36), (22.0, 48.0, 46.0), (-14.0, -60.0, -24.0), jitter=6.0, stride=6.0),
    "sitting": Stance(0.16, (60, 80), (-14.0, 4.0, 14.0), (84.0, -52.0, 84.0), jitter=2.0),
    "lying": Stance(0.04, (48, 68), (-58.0, 82.0, 86.0), (80.0, -76.0, 86.0), jitter=0.0),
}

SHOTS = {"side": (0.68, (-10, 18)), "three_quarter": (0.22, (22, 42)), "portrait": (0.10, (20, 50))}
"""How common each is, and how far the dog faces the viewer, in degrees."""


@dataclass(frozen=True)
class Pose:
    """All angles in degrees."""

    stance: str
    forelegs: Floats  # [left, right]
    hindlegs: Floats
    neck: float  # above the horizon
    head_azimuth: float  # where the muzzle points in the image's plane: 0 right, 90 at the viewer, 180 left
    head_pitch: float  # up is positive
    head_tilt: float
    tail_lift: float  # added to the breed's carriage
    tail_sway: float  # to the dog's left
    mouth_open: float  # 0 to 1
    ear_lift: float


@dataclass(frozen=True)
class Camera:
    """From where the dog is seen, in degrees."""

    azimuth: float  # of the dog's trunk, as head_azimuth
    elevation: float  # that the camera looks down

    def axes(self) -> Floats:
        """Right, up and towards the viewer in the dog's frame (x to its head, y to its left, z up) [3, 3]."""
        turn, look = np.radians(self.azimuth), np.radians(self.elevation)
        level = np.array([np.sin(turn), -np.cos(turn), 0.0])
        zenith = np.array([0.0, 0.0, 1.0])
        up, towards = np.cos(look) * zenith - np.sin(look) * level, np.cos(look) * level + np.sin(look) * zenith
        return np.stack([np.array([np.cos(turn), np.sin(turn), 0.0]), up, towards])


def sample_camera(rng: Generator, shot: str) -> Camera:
    """Either side of the dog, at a person's or a dog's eye level."""
    away = rng.uniform(*SHOTS[shot][1])
    return Camera(azimuth=float(away if rng.random() < 0.5 else 180 - away), elevation=float(rng.uniform(2, 16)))


def sample_pose(rng: Generator, shot: str, camera: Camera) -> Pose:
    """Any stance, and a head that looks where the body goes or turns towards the viewer."""
    stance = str(rng.choice(list(STANCES), p=[stance.share for stance in STANCES.values()]))
    if stance == "running" and shot == "portrait":
        stance = "sitting"
    forelegs, hindlegs = STANCES[stance].legs(rng)
    turn = rng.uniform(-0.1, 0.6 if shot == "side" else 0.9) if rng.random() < 0.75 else 0.0
    return Pose(
        stance=stance,
        forelegs=forelegs,
        hindlegs=hindlegs,
        neck=rng.uniform(*STANCES[stance].neck),
        head_azimuth=camera.azimuth + float(np.clip(turn * (90 - camera.azimuth), -75, 75)),
        head_pitch=rng.uniform(-14, 8),
        head_tilt=rng.normal(0, 6),
        tail_lift=rng.normal(0, 14),
        tail_sway=rng.normal(0, 18),
        mouth_open=rng.uniform(0.4, 1.0) if rng.random() < 0.45 else 0.0,
        ear_lift=rng.normal(0, 8),
    )
