"""From a breed's build and a pose to solids: trunk, legs, tail, neck and head."""

from __future__ import annotations

import numpy as np

from .breeds import Breed, Build
from .pose import Pose
from .solids import Floats, Frame, Part, Solids, Triple, normalised

SIDEWAYS = np.array([0.0, 1.0, 0.0])
SIDES = (1.0, -1.0)  # left, right

# Of the trunk seen from the side, rump to forechest: place along it, topline and underline in chest depths.
PROFILE_AT = np.array([-0.04, 0.10, 0.32, 0.55, 0.80, 0.97])
TOPLINE = np.array([0.33, 0.45, 0.45, 0.45, 0.49, 0.36])
BELLY_LEVEL = np.array([-0.22, -0.34, -0.42, -0.48, -0.50, -0.26])
BELLY_TUCKED = np.array([-0.18, -0.16, -0.06, -0.28, -0.52, -0.28])
WIDTH = np.array([0.62, 0.86, 0.84, 0.95, 1.0, 0.72])


def dog(breed: Breed, pose: Pose) -> Solids:
    """A whole dog that stands on the ground (z = 0), its head towards +x."""
    solids = Solids()
    trunk = _placed_trunk(breed.build, pose)
    _add_trunk(solids, breed, trunk)
    for side, fore, hind in zip(SIDES, pose.forelegs, pose.hindlegs, strict=True):
        _add_legs(solids, breed, trunk, fore, hind, side)
    _add_tail(solids, breed, trunk, pose)
    _add_head(solids, breed, _placed_head(solids, breed, trunk, pose))
    return solids


def _direction(degrees: Floats | float) -> Floats:
    """Unit vectors [..., 3] that hang down, swung forward by angles."""
    angle = np.radians(degrees)
    return np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=-1)


def _segments(build: Build) -> tuple[Floats, Floats]:
    """Lengths [3] of the upper, middle and lower segment of a foreleg, and of a hind leg."""
    chest, leg = build.chest, build.leg
    fore = np.array([0.46 * chest, 0.62 * leg, 0.30 * leg])
    return fore, np.array([0.40 * chest + 0.20 * leg, 0.12 * chest + 0.44 * leg, 0.36 * leg])


def _placed_trunk(build: Build, pose: Pose) -> Frame:
    """Lift and pitch the trunk until the lower leg of each pair stands on the ground, or the dog lies on it."""
    fore, hind = (
        max(float((np.cos(np.radians(legs)) @ segments).max()) + 0.94 * build.bone, 0.42 * build.chest)
        for segments, legs in zip(_segments(build), (pose.forelegs, pose.hindlegs), strict=True)
    )
    along, down = 0.71 * build.trunk, 0.14 * build.chest  # from hip to shoulder
    rise = np.clip((fore - hind) / np.hypot(along, down), -0.5, 0.9)
    pitch = float(np.arcsin(rise) + np.arctan2(down, along))
    forward = np.array([np.cos(pitch), 0.0, np.sin(pitch)])
    axes = np.stack([forward, SIDEWAYS, np.cross(forward, SIDEWAYS)])
    hip = np.array([0.13 * build.trunk, 0.0, 0.08 * build.chest])
    scale = np.array([build.trunk, 0.5 * build.chest * build.width, 0.5 * build.chest])
    return Frame(np.array([0.0, 0.0, hind]) - hip @ axes, axes, scale)


def _add_trunk(solids: Solids, breed: Breed, frame: Frame) -> None:
    build, coat = breed.build, breed.coat
    at = np.linspace(PROFILE_AT[0], PROFILE_AT[-1], 12)
    top = np.interp(at, PROFILE_AT, TOPLINE)
    bottom = np.interp(at, PROFILE_AT, BELLY_LEVEL * (1 - build.tuck) + BELLY_TUCKED * build.tuck)
    height, width = 0.5 * (top - bottom) * build.chest, np.interp(at, PROFILE_AT, WIDTH) * frame.scale[1]
    places = np.stack([at, np.zeros(12), top + bottom], axis=1)
    fluff = 0.045 * coat.length
    radii = np.stack([np.full(12, 0.15 * build.trunk), width + fluff, height + fluff], axis=1)
    centres = frame.origin + (places * frame.scale) @ frame.axes
    solids.ellipsoids(
        centres, frame.axes, radii, Part.TRUNK, (frame.axes / frame.scale[:, None], places), coat.length, bulge=0.10
    )
    if coat.skirt:
        hang = 0.5 * coat.skirt * build.leg / frame.scale[2]
        for place in np.linspace(0.18, 0.88, 6):
            solids.blob(frame, (place, 0.0, -0.52 - hang), (0.13, 0.80, 0.6 + hang), Part.TRUNK, hair=1.0)


def _add_legs(solids: Solids, breed: Breed, trunk: Frame, fore: Floats, hind: Floats, side: float) -> None:
    build, coat = breed.build, breed.coat
    chest, fluff = build.chest, 0.012 * coat.length
    bone, paw = build.bone + 2 * fluff, 1.18 * build.bone + fluff
    fore_segments, hind_segments = _segments(build)

    points = _joints(trunk.point(0.84, 0.6 * side, -0.12), fore_segments, fore, paw)
    points[:2, 1] -= side * 0.25 * build.bone
    radii = np.array([0.26 * chest, max(0.16 * chest + 0.4 * bone, bone), 0.92 * bone, 0.88 * bone, paw])
    solids.tube(points, radii, Part.FORELEG, across=SIDEWAYS, flat=0.78, hair=0.5 * coat.length)

    points = _joints(trunk.point(0.13, 0.6 * side, 0.16), hind_segments, hind, 0.95 * paw)
    points = np.insert(points, [1, 2], 0.5 * (points[:2] + points[1:3]), axis=0)  # the middles of thigh and shank
    thigh = 0.32 * chest * (1 - 0.15 * build.tuck)
    radii = thigh * np.array([1, 0.92, 0.5, 0.3, 0, 0, 0]) + bone * np.array([0, 0, 0.35, 0.5, 0.84, 0.84, 1.1]) + fluff
    solids.tube(points, radii, Part.HINDLEG, across=SIDEWAYS, flat=0.70, hair=0.5 * coat.length)


def _joints(start: Floats, segments: Floats, angles: Floats, paw: float) -> Floats:
    """World positions [5, 3] of a leg's joints and of its toe, which points forward, more so the more the leg hangs."""
    steps = [*(segments[:, None] * _direction(angles)), paw * _direction(np.clip(angles[2] + 62.0, 40.0, 100.0))]
    positions: Floats = start + np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    return positions


def _add_tail(solids: Solids, breed: Breed, trunk: Frame, pose: Pose) -> None:
    tail, t = breed.tail, np.linspace(0, 1, 13)
    climb = np.radians(tail.root + pose.tail_lift + tail.turn * t[1:]) - np.arctan2(*trunk.axes[0, [2, 0]])
    steps = np.stack([-np.cos(climb), np.zeros(12), np.sin(climb)], axis=1) * (tail.length / 12)
    points = trunk.point(-0.02, 0.0, 0.62) + np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    points[:, 2] = np.maximum(points[:, 2], tail.thickness)  # a tail rests on the ground
    radii = tail.thickness * np.interp(t, np.linspace(0, 1, len(tail.profile)), tail.profile) + 0.01 * breed.coat.length
    solids.tube(points, radii, Part.TAIL, across=SIDEWAYS, hair=breed.coat.length)


def _placed_head(solids: Solids, breed: Breed, trunk: Frame, pose: Pose) -> Frame:
    """Add the neck; returns where it carries the skull."""
    build, coat, skull = breed.build, breed.coat, breed.head.skull
    base, lift = trunk.point(0.84, 0.0, 0.12), np.radians(pose.neck)
    nape = base + (build.neck + 0.25 * build.chest) * np.array([np.cos(lift), 0.0, np.sin(lift)])
    # Seen from the side the azimuths of head and trunk differ by the turn of the neck.
    yaw, pitch = np.radians([pose.azimuth - pose.head_azimuth, pose.head_pitch])
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    left = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    crown = np.cross(forward, left)
    points = np.stack([base, 0.55 * base + 0.45 * nape, nape - 0.1 * skull * forward])
    radii = np.array([1.5, 1.08, 0.92]) * build.neck_thickness + np.array([0.06, 0.05, 0.035]) * coat.length
    solids.tube(points, radii, Part.NECK, across=SIDEWAYS, flat=0.9, hair=0.7 * coat.length)
    centre = nape + skull * (0.45 * forward + 0.1 * crown)
    return Frame(centre, np.stack([forward, left, crown]), np.full(3, skull))


def _add_head(solids: Solids, breed: Breed, frame: Frame) -> None:
    """Skull, ears, eyes and muzzle. Measures are in radii of the skull; x forward, y to the dog's left, z up."""
    head, coat = breed.head, breed.coat

    def add(at: Triple, radii: Triple, part: Part = Part.SKULL, hair: float = 0.22 * coat.length) -> None:
        solids.blob(frame, at, radii, part, hair=hair)

    add((0.0, 0.0, 0.0), (1.0, head.width * 0.96, 0.90))
    if head.topknot:
        add((-0.15, 0.0, 0.72), (0.85, 0.80, 0.72 * head.topknot), hair=coat.length)
    for side in SIDES:
        add((0.28, side * 0.42 * head.width, -0.34), (0.62, 0.46 * head.width, 0.50))  # cheek
        if coat.length > 0.3:
            add((-0.15, side * 0.55 * head.width, -0.45), (0.5, 0.5, 0.55), hair=0.5 * coat.length)  # ruff
        x, y, z = 0.787, side * 0.492 * head.width, 0.178
        add((x, y, z), (0.7 * head.eye, head.eye, 0.95 * head.eye), Part.EYE)
        # The upper lid: an eye that is not overhung stares.
        add((0.96 * x, y, z + 0.95 * head.eye), (0.9 * head.eye, 1.25 * head.eye, 0.55 * head.eye))
        _add_ear(solids, breed, frame, side)

    root, tip = 0.42, 0.78 + head.muzzle_length
    depth, width = head.muzzle_depth * head.taper, head.muzzle_width * head.taper  # of the tip
    length = max(0.8 * depth, 0.2 * (tip - root))
    for t in np.linspace(0, 1, 5):
        size = (1 - t) * 0.69 + t * 0.80 * head.taper
        at = ((1 - t) * root + t * (tip - length), 0.0, -0.24 - 0.08 * t)
        add(at, (length, 1.35 * size * head.muzzle_width, size * head.muzzle_depth), Part.MUZZLE)
    # Below the upper lip: the line of the mouth, and the lower jaw.
    lip, middle, half = -0.32 - 0.42 * depth, 0.5 * (root + tip), 0.5 * (tip - root) - 0.06
    add((middle - 0.04, 0.0, lip - 0.06), (half, 0.86 * width, 0.10), Part.MOUTH)
    add((middle - 0.14, 0.0, lip - 0.16), (half, 0.84 * width, 0.20 + 0.12 * depth), Part.MUZZLE)
    if head.beard:
        for x, drop in ((tip - 0.30, 0.30), (middle, 0.22)):
            add((x, 0.0, lip - drop), (0.36, width, 0.60 * head.beard), Part.MUZZLE, hair=1.0)
    nose = 0.15 + 0.16 * head.muzzle_width
    add((tip - 0.02, 0.0, -0.30 + 0.42 * depth), (0.7 * nose, 0.95 * nose, 0.72 * nose), Part.NOSE)


def _add_ear(solids: Solids, breed: Breed, frame: Frame, side: float) -> None:
    """An ear is a leaf: a spine of points, a width along it, a thin cross-section."""
    ears = breed.ears
    spine = np.array(ears.root) + ears.length * np.array(ears.spine)
    spine[:, 1] = side * (spine[:, 1] + 0.52 * (breed.head.width - 1))
    points = frame.origin + (spine * frame.scale) @ frame.axes
    facing = normalised(np.array(ears.facing) * (1.0, side, 1.0)) @ frame.axes
    radii = ears.width * frame.scale[0] * np.array(ears.outline)
    solids.tube(points, radii, Part.EAR, across=facing, flat=0.24, hair=0.5 * breed.coat.length)
