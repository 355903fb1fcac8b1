"""The head: skull, muzzle, eyes, ears. Measures are in radii of the skull; x forward, y to the dog's left, z up."""

from __future__ import annotations

import numpy as np

from .breeds import Breed, Ears
from .pose import Pose
from .solids import Floats, Frame, Part, Solids, cross

SIDES = (1.0, -1.0)


def add_head(solids: Solids, breed: Breed, frame: Frame, pose: Pose) -> None:
    head, coat = breed.head, breed.coat
    hair = 0.22 * coat.length  # short on every face
    solids.blob(frame, (0.0, 0.0, 0.0), (1.0, head.width * 0.96, 0.90), Part.SKULL, hair=hair)
    for side in SIDES:
        cheek = (0.28, side * 0.42 * head.width, -0.34)
        solids.blob(frame, cheek, (0.62, 0.46 * head.width, 0.50), Part.SKULL, hair=hair)
        if coat.length > 0.3:  # ruff
            solids.blob(
                frame, (-0.15, side * 0.55 * head.width, -0.45), (0.5, 0.5, 0.55), Part.SKULL, hair=0.5 * coat.length
            )
    if head.topknot:
        solids.blob(frame, (-0.15, 0.0, 0.72), (0.85, 0.80, 0.72 * head.topknot), Part.SKULL, hair=coat.length)
    _add_muzzle(solids, breed, frame, pose)
    _add_eyes(solids, breed, frame)
    for side in SIDES:
        _add_ear(solids, breed.ears, frame, side, pose.ear_lift, coat.length, head.width)


def _add_muzzle(solids: Solids, breed: Breed, frame: Frame, pose: Pose) -> None:
    head, coat = breed.head, breed.coat
    root, tip = 0.42, 0.78 + head.muzzle_length
    tip_depth = head.muzzle_depth * head.taper
    tip_width = head.muzzle_width * head.taper
    along = np.linspace(0, 1, 6)
    for t in along:
        x = root + (tip - 0.8 * tip_depth - root) * t
        depth = 0.86 * head.muzzle_depth + (tip_depth - 0.86 * head.muzzle_depth) * t
        width = 1.1 * head.muzzle_width + (tip_width - 1.1 * head.muzzle_width) * t
        reach = max(0.8 * tip_depth, 0.24 * head.muzzle_length)
        solids.blob(
            frame, (x, 0.0, -0.24 - 0.08 * t), (reach, width, 0.80 * depth), Part.MUZZLE, hair=0.25 * coat.length
        )
    lip = -0.32 - 0.42 * tip_depth
    gape = 0.34 * pose.mouth_open
    # Below the upper lip: the line of the mouth, the lower jaw, a tongue when it is open.
    mid, half, short = 0.5 * (root + tip), 0.5 * (tip - root) - 0.06, 0.25 * coat.length
    at, radii = (mid - 0.04, 0.0, lip - 0.06 - 0.4 * gape), (half, 0.86 * tip_width, 0.10 + 0.4 * gape)
    solids.blob(frame, at, radii, Part.MOUTH)
    at, radii = (mid - 0.14, 0.0, lip - 0.16 - 0.75 * gape), (half, 0.84 * tip_width, 0.20 + 0.12 * tip_depth)
    solids.blob(frame, at, radii, Part.MUZZLE, hair=short, axes=_pitched(frame.axes, -38.0 * gape))
    if pose.mouth_open > 0.55:
        solids.blob(frame, (tip - 0.30, 0.0, lip - 0.10 - 0.85 * gape), (0.30, 0.45 * tip_width, 0.30), Part.TONGUE)
    if head.jowls:
        for side in SIDES:
            at = (mid + 0.05, side * 0.62 * tip_width, lip + 0.08 - 0.18 * head.jowls)
            radii = (0.48 * (tip - root) + 0.05, 0.46 * tip_width, 0.26 + 0.34 * head.jowls)
            solids.blob(frame, at, radii, Part.MUZZLE)
    if head.beard:
        for x, drop in ((tip - 0.30, 0.30), (mid, 0.22)):
            solids.blob(frame, (x, 0.0, lip - drop), (0.36, tip_width, 0.60 * head.beard), Part.MUZZLE, hair=1.0)
    nose = 0.15 + 0.16 * head.muzzle_width
    solids.blob(frame, (tip - 0.02, 0.0, -0.30 + 0.42 * tip_depth), (0.7 * nose, 0.95 * nose, 0.72 * nose), Part.NOSE)


def _pitched(axes: Floats, degrees: float) -> Floats:
    angle = np.radians(degrees)
    forward = np.cos(angle) * axes[0] + np.sin(angle) * axes[2]
    return np.stack([forward, axes[1], cross(forward, axes[1])])


def _add_eyes(solids: Solids, breed: Breed, frame: Frame) -> None:
    head = breed.head
    for side in SIDES:
        towards = np.array([0.80, side * 0.50, 0.20])
        towards /= np.linalg.norm(towards)
        x, y, z = towards * (0.95, 0.95 * head.width, 0.86)
        solids.blob(frame, (x, y, z), (0.7 * head.eye, head.eye, 0.95 * head.eye), Part.EYE)
        if head.brows:
            solids.blob(frame, (x, 0.9 * y, z + 0.24), (0.30, 0.26, 0.16), Part.SKULL, hair=1.0)
        # The upper lid: an eye that is not overhung stares.
        lid = (0.9 * head.eye, 1.25 * head.eye, 0.55 * head.eye)
        solids.blob(frame, (0.96 * x, y, z + 0.95 * head.eye), lid, Part.SKULL)


def _add_ear(
    solids: Solids, ears: Ears, frame: Frame, side: float, lift: float, coat_length: float, head_width: float
) -> None:
    """An ear is a leaf: a spine of points, a width along it, a thin cross-section."""
    length, width = ears.length, ears.width
    t = np.linspace(0, 1, 7)
    out = np.sin(np.radians(lift))
    # Spine in head coordinates (x forward, y outward, z up) and the leaf's outline.
    if ears.kind in ("pricked", "bat"):
        x, y, z = -0.12 - 0.10 * t, 0.52 * head_width + (0.26 + 0.5 * out) * length * t, 0.52 + length * t
        outline = 1.0 - 0.93 * t**1.25 if ears.kind == "pricked" else np.sqrt(np.clip(1.04 - t**2.2, 0.06, 1))
        facing = np.array([1.0, side * 0.45, 0.0])
    elif ears.kind == "button":
        rise = np.sin(np.pi * 0.55 * t) * (1 - t)
        x, y = -0.10 + 0.75 * length * t**1.6, 0.58 * head_width + 0.42 * length * t
        z = 0.62 + 1.15 * length * rise - 0.45 * length * t**2
        outline = 1.05 - 0.85 * t**1.6
        facing = np.array([0.62, side * 0.62, 0.48])
    elif ears.kind == "rose":
        x, y = -0.25 - 0.75 * length * t, 0.55 * head_width + 0.35 * length * t
        z = 0.55 + 0.22 * np.sin(3 * t)
        outline = 1.0 - 0.8 * t
        facing = np.array([0.2, side * 0.9, 0.4])
    else:
        x, y = -0.18 + 0.16 * t, 0.74 * head_width + 0.26 * np.sin(np.pi * 0.6 * t) + 0.4 * out * t
        z = 0.46 + 0.10 * np.sin(np.pi * t) - length * 1.12 * t
        outline = 0.62 + 0.5 * np.sin(np.pi * np.clip(0.15 + 0.75 * t, 0, 1)) - 0.25 * t**4
        facing = np.array([0.1, side * 1.0, 0.1])
    spine = np.stack([x, side * y, z], axis=1)
    points = frame.origin + (spine * frame.scale) @ frame.axes
    normal = facing / np.linalg.norm(facing) @ frame.axes
    radius = np.maximum(width * outline, 0.05) * frame.scale[0]
    solids.tube(points, radius, Part.EAR, across=normal, flat=(0.24, 1.0), hair=0.5 * coat_length, spacing=0.35)
    if ears.kind in ("pricked", "bat"):
        inner = points[:-1] + 0.16 * width * frame.scale[0] * normal
        solids.tube(inner, 0.60 * radius[:-1], Part.INNER_EAR, across=normal, flat=(0.24, 1.0), spacing=0.45)
