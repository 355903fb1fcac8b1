"""From a breed's build and a pose to solids: trunk, neck, legs, tail. The head has a module of its own."""

from __future__ import annotations

import numpy as np

from .breeds import Breed
from .head import SIDES, add_head
from .pose import Camera, Pose
from .solids import Floats, Frame, Part, Solids

SIDEWAYS = np.array([0.0, 1.0, 0.0])

# Of the trunk seen from the side, rump to forechest: place along it, topline and underline in chest depths.
PROFILE_AT = np.array([-0.04, 0.10, 0.32, 0.55, 0.80, 0.97])
TOPLINE = np.array([0.33, 0.45, 0.45, 0.45, 0.49, 0.36])
BELLY_LEVEL = np.array([-0.22, -0.34, -0.42, -0.48, -0.50, -0.26])
BELLY_TUCKED = np.array([-0.18, -0.16, -0.06, -0.28, -0.52, -0.28])
WIDTH = np.array([0.62, 0.86, 0.84, 0.95, 1.0, 0.72])


def direction(degrees: Floats | float) -> Floats:
    """Unit vectors [..., 3] that hang down, swung forward by angles."""
    angle = np.radians(degrees)
    return np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=-1)


class Skeleton:
    """Where a breed's joints are in a pose.

    The legs decide: with the angles given, the trunk is lifted and pitched until the lower leg of each pair stands on
    the ground (z = 0).
    """

    def __init__(self, breed: Breed, pose: Pose) -> None:
        build = breed.build
        chest, leg = build.chest, build.leg
        self.paw = 1.18 * build.bone
        self.fore_segments = np.array([0.46 * chest, 0.62 * leg, 0.30 * leg])
        self.hind_segments = np.array([0.40 * chest + 0.20 * leg, 0.12 * chest + 0.44 * leg, 0.36 * leg])
        self.shoulder = np.array([0.84 * build.trunk, 0.30 * chest * build.width, -0.06 * chest])
        self.hip = np.array([0.13 * build.trunk, 0.30 * chest * build.width, 0.08 * chest])
        fore_drop = self._drop(self.fore_segments, pose.forelegs)
        hind_drop = self._drop(self.hind_segments, pose.hindlegs)
        if pose.stance in ("sitting", "lying"):
            hind_drop = max(hind_drop, 0.40 * chest)
        if pose.stance == "lying":
            fore_drop = max(fore_drop, 0.44 * chest)
        between = (self.shoulder - self.hip)[[0, 2]]
        rise = np.clip((fore_drop - hind_drop) / np.hypot(*between), -0.5, 0.9)
        self.pitch = float(np.arcsin(rise) - np.arctan2(between[1], between[0]))
        forward = np.array([np.cos(self.pitch), 0.0, np.sin(self.pitch)])
        axes = np.stack([forward, SIDEWAYS, np.cross(forward, SIDEWAYS)])
        rump = np.array([0.0, 0.0, hind_drop]) - self.hip[[0, 2]] @ axes[[0, 2]]
        self.trunk = Frame(rump, axes, np.array([build.trunk, 0.5 * chest * build.width, 0.5 * chest]))

    def _drop(self, segments: Floats, legs: Floats) -> float:
        return float((np.cos(np.radians(legs)) @ segments).max()) + 0.8 * self.paw

    def leg(self, place: Floats, segments: Floats, angles: Floats, side: float) -> Floats:
        """World positions [4, 3] of the joints of a leg that begins at a place in the trunk's frame and lengths."""
        start = self.trunk.origin + (place * (1.0, side, 1.0)) @ self.trunk.axes
        return start + np.concatenate([np.zeros((1, 3)), np.cumsum(segments[:, None] * direction(angles), axis=0)])


def dog(breed: Breed, pose: Pose, camera: Camera) -> Solids:
    """A whole dog, standing at the origin's height, its head towards +x."""
    solids = Solids()
    skeleton = Skeleton(breed, pose)
    _add_trunk(solids, breed, skeleton.trunk)
    for side, fore, hind in zip(SIDES, pose.forelegs, pose.hindlegs, strict=True):
        _add_legs(solids, breed, skeleton, fore, hind, side)
    _add_tail(solids, breed, skeleton, pose)
    _add_neck_and_head(solids, breed, skeleton, pose, camera)
    return solids


def _add_trunk(solids: Solids, breed: Breed, frame: Frame) -> None:
    build, coat = breed.build, breed.coat
    at = np.linspace(PROFILE_AT[0], PROFILE_AT[-1], 12)
    top = np.interp(at, PROFILE_AT, TOPLINE)
    bottom = np.interp(at, PROFILE_AT, BELLY_LEVEL * (1 - build.tuck) + BELLY_TUCKED * build.tuck)
    height, width = 0.5 * (top - bottom) * build.chest, np.interp(at, PROFILE_AT, WIDTH) * frame.scale[1]
    places = np.stack([at, np.zeros(12), top + bottom], axis=1)
    fluff = 0.045 * coat.length
    solids.ellipsoids(
        frame.origin + (places * frame.scale) @ frame.axes,
        frame.axes,
        np.stack([np.full(12, 0.15 * build.trunk), width + fluff, height + fluff], axis=1),
        Part.TRUNK,
        (frame.map, places),
        coat.length,
        bulge=0.10,
    )
    if coat.skirt:
        hang = 0.5 * coat.skirt * build.leg / frame.scale[2]
        for place in np.linspace(0.18, 0.88, 6):
            solids.blob(frame, (place, 0.0, -0.52 - hang), (0.13, 0.80, 0.6 + hang), Part.TRUNK, hair=1.0)


def _add_legs(solids: Solids, breed: Breed, skeleton: Skeleton, fore: Floats, hind: Floats, side: float) -> None:
    """Add a foreleg and a hind leg."""
    build, coat = breed.build, breed.coat
    chest, fluff = build.chest, 0.012 * coat.length
    bone = build.bone + coat.legs * coat.length
    joints = skeleton.leg(skeleton.shoulder, skeleton.fore_segments, fore, side)
    joints[:2, 1] -= side * 0.25 * build.bone
    radii = np.array([0.26 * chest, max(0.16 * chest + 0.4 * bone, bone), 0.92 * bone, 0.88 * bone])
    solids.tube(joints, radii, Part.FORELEG, across=SIDEWAYS, flat=(0.78, 1.0), hair=0.5 * coat.length)
    _add_paw(solids, joints[3], skeleton.paw + fluff, fore[2], Part.FORELEG)

    joints = skeleton.leg(skeleton.hip, skeleton.hind_segments, hind, side)
    _add_paw(solids, joints[3], 0.95 * skeleton.paw + fluff, hind[2], Part.HINDLEG)
    thigh = 0.32 * chest * (1 - 0.15 * build.tuck)
    # With the middles of thigh and shank.
    points = np.insert(joints, [1, 2], 0.5 * (joints[:2] + joints[1:3]), axis=0)
    radii = thigh * np.array([1, 0.92, 0.5, 0.3, 0, 0]) + bone * np.array([0, 0, 0.35, 0.5, 0.84, 0.84]) + fluff
    solids.tube(points, radii, Part.HINDLEG, across=SIDEWAYS, flat=(0.70, 1.0), hair=0.5 * coat.length)


def _add_paw(solids: Solids, ankle: Floats, size: float, angle: float, part: Part) -> None:
    """A paw points forward, more so the more the leg hangs."""
    toe = direction(np.clip(angle + 62.0, 40.0, 100.0))
    # Coat coordinates around it: along = 1, the value at a leg's end.
    frame = Frame(ankle - np.array([1e3, 0.0, 0.0]) * size, np.eye(3), np.full(3, 1e3) * size)
    points, radii = np.stack([ankle, ankle + size * toe]), np.array([0.95, 1.0]) * size
    solids.tube(points, radii, part, across=SIDEWAYS, flat=(0.82, 1.06), frame=frame)


def _add_tail(solids: Solids, breed: Breed, skeleton: Skeleton, pose: Pose) -> None:
    tail, steps = breed.tail, 12
    rests = tail.rests and pose.stance in ("sitting", "lying")
    t = np.linspace(0, 1, steps)
    climb = np.radians(np.linspace(-20, 14, steps) if rests else tail.root + pose.tail_lift + tail.turn * t)
    climb -= skeleton.pitch * (1 - t if rests else 1)
    sway = np.radians(pose.tail_sway) * (0.4 + 0.8 * t) + tail.aside * t
    step = np.stack([-np.cos(climb) * np.cos(sway), np.sin(sway), np.sin(climb) * np.cos(sway)], axis=1)
    base = skeleton.trunk.point(-0.02, 0.0, 0.62)
    points = base + np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)]) * (tail.length / steps)
    if rests:
        points[:, 2] = np.maximum(points[:, 2], tail.thickness)
    profile = np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(tail.profile)), tail.profile)
    radii = tail.thickness * profile + 0.01 * breed.coat.length
    solids.tube(points, radii, Part.TAIL, across=SIDEWAYS, hair=breed.coat.length, spacing=0.5)


def _add_neck_and_head(solids: Solids, breed: Breed, skeleton: Skeleton, pose: Pose, camera: Camera) -> None:
    build, coat, skull = breed.build, breed.coat, breed.head.skull
    base = skeleton.trunk.point(0.84, 0.0, 0.12)
    lift = np.radians(pose.neck)
    nape = base + (build.neck + 0.25 * build.chest) * np.array([np.cos(lift), 0.0, np.sin(lift)])
    # Seen from the side the azimuths of head and trunk differ by the turn of the neck.
    yaw, pitch, tilt = np.radians([camera.azimuth - pose.head_azimuth, pose.head_pitch, pose.head_tilt])
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    level = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    crown = np.cross(forward, level)
    left = np.cos(tilt) * level + np.sin(tilt) * crown
    centre = nape + skull * (0.45 * forward + 0.1 * crown)
    fluff = 0.05 * coat.length
    points = np.stack([base, 0.55 * base + 0.45 * nape, nape - 0.1 * skull * forward])
    radii = np.array([1.5, 1.08, 0.92]) * build.neck_thickness + np.array([1.2, 1.0, 0.7]) * fluff
    solids.tube(points, radii, Part.NECK, across=SIDEWAYS, flat=(0.9, 1.0), hair=0.7 * coat.length)
    add_head(solids, breed, Frame(centre, np.stack([forward, left, np.cross(forward, left)]), np.full(3, skull)), pose)
