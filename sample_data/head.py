"""The head: skull, muzzle, eyes, ears. Measures are in radii of the skull; x forward, y to the dog's left, z up."""

from __future__ import annotations

import numpy as np

from .breeds import Breed
from .pose import Pose
from .solids import Frame, Part, Solids

SIDES = (1.0, -1.0)  # left, right


def add_head(solids: Solids, breed: Breed, frame: Frame, pose: Pose) -> None:
    """Add a head whose skull is at the frame's origin."""
    head, coat = breed.head, breed.coat
    hair = 0.22 * coat.length  # short on every face
    solids.blob(frame, (0.0, 0.0, 0.0), (1.0, head.width * 0.96, 0.90), Part.SKULL, hair=hair)
    if head.topknot:
        solids.blob(frame, (-0.15, 0.0, 0.72), (0.85, 0.80, 0.72 * head.topknot), Part.SKULL, hair=coat.length)
    for side in SIDES:
        cheek = (0.28, side * 0.42 * head.width, -0.34)
        solids.blob(frame, cheek, (0.62, 0.46 * head.width, 0.50), Part.SKULL, hair=hair)
        if coat.length > 0.3:
            ruff = (-0.15, side * 0.55 * head.width, -0.45)
            solids.blob(frame, ruff, (0.5, 0.5, 0.55), Part.SKULL, hair=0.5 * coat.length)
        _add_eye(solids, breed, frame, side)
        _add_ear(solids, breed, frame, side, pose.ear_lift)
    _add_muzzle(solids, breed, frame, pose)


def _add_eye(solids: Solids, breed: Breed, frame: Frame, side: float) -> None:
    eye = breed.head.eye
    x, y, z = 0.787, side * 0.492 * breed.head.width, 0.178
    solids.blob(frame, (x, y, z), (0.7 * eye, eye, 0.95 * eye), Part.EYE)
    # The upper lid: an eye that is not overhung stares.
    solids.blob(frame, (0.96 * x, y, z + 0.95 * eye), (0.9 * eye, 1.25 * eye, 0.55 * eye), Part.SKULL)
    if breed.head.brows:
        solids.blob(frame, (x, 0.9 * y, z + 0.24), (0.30, 0.26, 0.16), Part.SKULL, hair=1.0)


def _add_ear(solids: Solids, breed: Breed, frame: Frame, side: float, lift: float) -> None:
    """An ear is a leaf: a spine of points, a width along it, a thin cross-section."""
    ears = breed.ears
    spine = np.array(ears.root) + ears.length * np.array(ears.spine)
    outward = 0.5 * np.sin(np.radians(lift)) * np.linspace(0, 1, len(spine))
    spine[:, 1] = side * (spine[:, 1] + 0.52 * (breed.head.width - 1) + outward)
    points = frame.origin + (spine * frame.scale) @ frame.axes
    facing = np.array(ears.facing) * (1.0, side, 1.0)
    normal = facing / np.linalg.norm(facing) @ frame.axes
    radius = ears.width * frame.scale[0] * np.array(ears.outline)
    hair = 0.5 * breed.coat.length
    solids.tube(points, radius, Part.EAR, across=normal, flat=(0.24, 1.0), hair=hair, spacing=0.35)
    if ears.hollow:
        inner = points[:-1] + 0.16 * ears.width * frame.scale[0] * normal
        solids.tube(inner, 0.60 * radius[:-1], Part.INNER_EAR, across=normal, flat=(0.24, 1.0), spacing=0.45)


def _add_muzzle(solids: Solids, breed: Breed, frame: Frame, pose: Pose) -> None:
    head, short = breed.head, 0.25 * breed.coat.length
    root, tip = 0.42, 0.78 + head.muzzle_length
    depth, width = head.muzzle_depth * head.taper, head.muzzle_width * head.taper  # of the tip
    points = np.stack([frame.point(root, 0.0, -0.24), frame.point(tip - 0.8 * depth, 0.0, -0.32)])
    radii = np.array([0.69 * head.muzzle_depth, 0.80 * depth]) * frame.scale[0]
    flat = (1.35 * width / depth, 1.0)
    solids.tube(points, radii, Part.MUZZLE, across=frame.axes[1], flat=flat, hair=short, frame=frame, spacing=0.4)
    # Below the upper lip: the line of the mouth, the lower jaw, a tongue when it is open.
    lip, gape = -0.32 - 0.42 * depth, 0.34 * pose.mouth_open
    mid, half = 0.5 * (root + tip), 0.5 * (tip - root) - 0.06
    solids.blob(frame, (mid - 0.04, 0.0, lip - 0.06 - 0.4 * gape), (half, 0.86 * width, 0.10 + 0.4 * gape), Part.MOUTH)
    jaw = (mid - 0.14, 0.0, lip - 0.16 - 0.75 * gape)
    solids.blob(frame, jaw, (half, 0.84 * width, 0.20 + 0.12 * depth), Part.MUZZLE, hair=short)
    if pose.mouth_open > 0.55:
        solids.blob(frame, (tip - 0.30, 0.0, lip - 0.10 - 0.85 * gape), (0.30, 0.45 * width, 0.30), Part.TONGUE)
    if head.jowls:
        for side in SIDES:
            at = (mid + 0.05, side * 0.62 * width, lip + 0.08 - 0.18 * head.jowls)
            solids.blob(frame, at, (0.48 * (tip - root) + 0.05, 0.46 * width, 0.26 + 0.34 * head.jowls), Part.MUZZLE)
    if head.beard:
        for x, drop in ((tip - 0.30, 0.30), (mid, 0.22)):
            solids.blob(frame, (x, 0.0, lip - drop), (0.36, width, 0.60 * head.beard), Part.MUZZLE, hair=1.0)
    nose = 0.15 + 0.16 * head.muzzle_width
    solids.blob(frame, (tip - 0.02, 0.0, -0.30 + 0.42 * depth), (0.7 * nose, 0.95 * nose, 0.72 * nose), Part.NOSE)
