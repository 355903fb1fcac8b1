"""From a breed's build and a pose to solids: trunk, neck, legs, tail. The head has a module of its own."""

from __future__ import annotations

import numpy as np

from .breeds import Breed
from .head import add_head
from .pose import Camera, LegAngles, Pose
from .solids import Floats, Frame, Part, Solids, cross, normalised

SIDES = (1.0, -1.0)  # left, right
SIDEWAYS = np.array([0.0, 1.0, 0.0])

# Of the trunk seen from the side, rump to forechest: place along it, topline and underline in chest depths.
PROFILE_AT = np.array([-0.04, 0.10, 0.32, 0.55, 0.80, 0.97])
TOPLINE = np.array([0.33, 0.45, 0.45, 0.45, 0.49, 0.36])
BELLY_LEVEL = np.array([-0.22, -0.34, -0.42, -0.48, -0.50, -0.26])
BELLY_TUCKED = np.array([-0.18, -0.16, -0.06, -0.28, -0.52, -0.28])
WIDTH = np.array([0.62, 0.86, 0.84, 0.95, 1.0, 0.72])


def direction(degrees: float) -> Floats:
    """Unit vector hanging down, swung forward by an angle."""
    angle = np.radians(degrees)
    return np.array([np.sin(angle), 0.0, -np.cos(angle)])


class Skeleton:
    """Where a breed's joints are in a pose.

    The legs decide: with the angles given, the trunk is lifted and pitched until the lower leg of each pair stands on
    the ground (z = 0).
    """

    def __init__(self, breed: Breed, pose: Pose) -> None:
        build = breed.build
        self.paw = 1.18 * build.bone
        self.fore_segments = np.array([0.46 * build.chest, 0.62 * build.leg, 0.30 * build.leg])
        self.hind_segments = np.array(
            [0.40 * build.chest + 0.20 * build.leg, 0.12 * build.chest + 0.44 * build.leg, 0.36 * build.leg]
        )
        self.shoulder = np.array([0.84 * build.trunk, 0.30 * build.chest * build.width, -0.06 * build.chest])
        self.hip = np.array([0.13 * build.trunk, 0.30 * build.chest * build.width, 0.08 * build.chest])
        fore_drop = max(self._drop(self.fore_segments, leg) for leg in pose.forelegs)
        hind_drop = max(self._drop(self.hind_segments, leg) for leg in pose.hindlegs)
        if pose.stance in ("sitting", "lying"):
            hind_drop = max(hind_drop, 0.40 * build.chest)
        if pose.stance == "lying":
            fore_drop = max(fore_drop, 0.44 * build.chest)
        between = (self.shoulder - self.hip)[[0, 2]]
        rise = np.clip((fore_drop - hind_drop) / np.hypot(*between), -0.5, 0.9)
        pitch = float(np.arcsin(rise) - np.arctan2(between[1], between[0]))
        forward = np.array([np.cos(pitch), 0.0, np.sin(pitch)])
        axes = np.stack([forward, SIDEWAYS, cross(forward, SIDEWAYS)])
        rump = np.array([0.0, 0.0, hind_drop]) - self.hip[[0, 2]] @ axes[[0, 2]]
        self.trunk = Frame(rump, axes, np.array([build.trunk, 0.5 * build.chest * build.width, 0.5 * build.chest]))
        self.pitch = pitch

    def _drop(self, segments: Floats, leg: LegAngles) -> float:
        return float(segments @ np.cos(np.radians(leg))) + 0.8 * self.paw

    def joint(self, place: Floats, side: float) -> Floats:
        """World position of a joint given in the trunk's frame and lengths."""
        return self.trunk.origin + (place * (1.0, side, 1.0)) @ self.trunk.axes


def dog(breed: Breed, pose: Pose, camera: Camera, *, collared: bool = False) -> Solids:
    """A whole dog, standing at the origin's height, its head towards +x."""
    solids = Solids()
    skeleton = Skeleton(breed, pose)
    _add_trunk(solids, breed, skeleton)
    for side, fore, hind in zip(SIDES, pose.forelegs, pose.hindlegs, strict=True):
        _add_foreleg(solids, breed, skeleton, fore, side)
        _add_hindleg(solids, breed, skeleton, hind, side)
    _add_tail(solids, breed, skeleton, pose)
    _add_neck_and_head(solids, breed, skeleton, pose, camera, collared)
    return solids


def _add_trunk(solids: Solids, breed: Breed, skeleton: Skeleton) -> None:
    build, coat, frame = breed.build, breed.coat, skeleton.trunk
    at = np.linspace(PROFILE_AT[0], PROFILE_AT[-1], 12)
    top = np.interp(at, PROFILE_AT, TOPLINE)
    bottom = np.interp(at, PROFILE_AT, BELLY_LEVEL * (1 - build.tuck) + BELLY_TUCKED * build.tuck)
    half = 0.5 * (top - bottom) * build.chest
    width = np.interp(at, PROFILE_AT, WIDTH) * 0.5 * build.chest * build.width
    fluff = 0.045 * coat.length
    centres = (
        frame.origin
        + (at * build.trunk)[:, None] * frame.axes[0]
        + (0.5 * (top + bottom) * build.chest)[:, None] * frame.axes[2]
    )
    own = frame.axes / frame.scale[:, None]
    solids.ellipsoids(
        centres,
        np.broadcast_to(frame.axes, (len(at), 3, 3)),
        np.stack([np.full(len(at), 0.15 * build.trunk), width + fluff, half + fluff], axis=1),
        Part.TRUNK,
        hair=coat.length,
        coat_map=np.broadcast_to(own, (len(at), 3, 3)),
        coat_at=(centres - frame.origin) @ own.T,
        bulge=0.10,
    )
    if coat.skirt:
        hang = coat.skirt * build.leg
        depth = build.chest * 0.30 + 0.5 * hang
        for place in np.linspace(0.18, 0.88, 6):
            centre = frame.point(place, 0.0, -0.52) - np.array([0.0, 0.0, 0.5 * hang])
            local = (centre - frame.origin) @ own.T
            radii = (0.13, 0.80, depth / frame.scale[2])
            solids.blob(frame, (local[0], local[1], local[2]), radii, Part.TRUNK, hair=1.0)


def _leg(start: Floats, segments: Floats, angles: LegAngles) -> list[Floats]:
    joints = [start]
    for length, angle in zip(segments, angles, strict=True):
        joints.append(joints[-1] + length * direction(angle))
    return joints


def _add_paw(solids: Solids, ankle: Floats, size: float, angle: float, part: Part) -> None:
    """A paw points forward, more so the more the leg hangs."""
    toe = direction(np.clip(angle + 62.0, 40.0, 100.0))
    points, radii = np.stack([ankle, ankle + 1.0 * size * toe]), np.array([0.95, 1.0]) * size
    # Coat coordinates around it: along = 1, the value at a leg's end.
    frame = Frame(ankle - np.array([1e3, 0.0, 0.0]) * size, np.eye(3), np.full(3, 1e3) * size)
    solids.tube(points, radii, part, across=SIDEWAYS, flat=(0.82, 1.06), frame=frame)


def _add_foreleg(solids: Solids, breed: Breed, skeleton: Skeleton, angles: LegAngles, side: float) -> None:
    build, coat = breed.build, breed.coat
    joints = _leg(skeleton.joint(skeleton.shoulder, side), skeleton.fore_segments, angles)
    fluff = 0.022 * coat.length
    bone = build.bone + (0.03 * coat.length if coat.kind in ("curly", "wire") else 0.4 * fluff)
    inward = np.array([0.0, -side * 0.25 * build.bone, 0.0])
    points = np.stack([joints[0] + inward, joints[1] + inward, joints[2], joints[3]])
    radii = np.array([0.26 * build.chest, 0.16 * build.chest + 0.4 * bone, 0.92 * bone, 0.88 * bone])
    radii[1] = max(radii[1], bone)
    solids.tube(points, radii, Part.FORELEG, across=SIDEWAYS, flat=(0.78, 1.0), hair=0.5 * coat.length)
    _add_paw(solids, joints[3], skeleton.paw + 0.4 * fluff, angles[2], Part.FORELEG)


def _add_hindleg(solids: Solids, breed: Breed, skeleton: Skeleton, angles: LegAngles, side: float) -> None:
    build, coat = breed.build, breed.coat
    joints = _leg(skeleton.joint(skeleton.hip, side), skeleton.hind_segments, angles)
    fluff = 0.03 * coat.length
    bone = build.bone + (0.03 * coat.length if coat.kind in ("curly", "wire") else 0.3 * fluff)
    thigh = 0.32 * build.chest * (1 - 0.15 * build.tuck)
    mid_thigh = 0.5 * (joints[0] + joints[1])
    mid_shank = 0.5 * (joints[1] + joints[2])
    points = np.stack([joints[0], mid_thigh, joints[1], mid_shank, joints[2], joints[3]])
    radii = np.array(
        [thigh, 0.92 * thigh, 0.50 * thigh + 0.35 * bone, 0.30 * thigh + 0.5 * bone, 0.84 * bone, 0.84 * bone]
    )
    solids.tube(points, radii + 0.4 * fluff, Part.HINDLEG, across=SIDEWAYS, flat=(0.70, 1.0), hair=0.5 * coat.length)
    _add_paw(solids, joints[3], 0.95 * skeleton.paw + 0.3 * fluff, angles[2], Part.HINDLEG)


def _add_tail(solids: Solids, breed: Breed, skeleton: Skeleton, pose: Pose) -> None:
    tail, coat = breed.tail, breed.coat
    # Degrees above the topline's backward extension at the root, and the turn from root to tip.
    root, turn = {
        "curled": (70.0, 330.0),
        "sickle": (48.0, 55.0),
        "plume": (-8.0, 62.0),
        "otter": (6.0, 18.0),
        "whip": (-38.0, 62.0),
        "pompon": (62.0, 12.0),
        "docked": (35.0, 0.0),
    }[tail.kind]
    base = skeleton.trunk.point(-0.02, 0.0, 0.62)
    low = pose.stance in ("sitting", "lying") and tail.kind in ("plume", "otter", "whip")
    steps = 12
    climb = np.radians(root + pose.tail_lift + turn * np.linspace(0, 1, steps))
    if low:
        climb = np.linspace(np.radians(-20) - skeleton.pitch, np.radians(14), steps)
    else:
        climb -= skeleton.pitch
    sway = np.radians(pose.tail_sway) * np.linspace(0.4, 1.2, steps)
    if tail.kind == "curled":
        sway = sway * 0.3 + np.linspace(0.0, 0.5, steps)
    step = np.stack([-np.cos(climb) * np.cos(sway), np.sin(sway), np.sin(climb) * np.cos(sway)], axis=1)
    points = base + np.concatenate([np.zeros((1, 3)), np.cumsum(step, axis=0)]) * (tail.length / steps)
    if low:
        points[:, 2] = np.maximum(points[:, 2], tail.thickness)
    t = np.linspace(0, 1, steps + 1)
    profile = {
        "plume": 0.55 + 0.75 * np.sin(np.pi * np.clip(t * 0.95, 0, 1)) ** 0.8,
        "curled": 1.05 - 0.25 * t,
        "otter": 1.15 - 0.7 * t,
        "pompon": np.where(t < 0.62, 1.0, 3.1),
    }.get(tail.kind, 1.1 - 0.65 * t)
    radii = tail.thickness * profile + 0.01 * coat.length
    solids.tube(points, radii, Part.TAIL, across=SIDEWAYS, hair=coat.length, spacing=0.5)


def _add_neck_and_head(
    solids: Solids, breed: Breed, skeleton: Skeleton, pose: Pose, camera: Camera, collared: bool
) -> None:
    build, coat = breed.build, breed.coat
    base = skeleton.trunk.point(0.84, 0.0, 0.12)
    lift = np.radians(pose.neck)
    nape = base + (build.neck + 0.25 * build.chest) * np.array([np.cos(lift), 0.0, np.sin(lift)])
    # Seen from the side the azimuths of head and trunk differ by the turn of the neck.
    yaw = np.radians(camera.azimuth - pose.head_azimuth)
    pitch, tilt = np.radians(pose.head_pitch), np.radians(pose.head_tilt)
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    level = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    crown = cross(forward, level)
    left = np.cos(tilt) * level + np.sin(tilt) * crown
    skull = breed.head.skull
    frame = Frame(
        nape + 0.45 * skull * forward + 0.1 * skull * crown,
        np.stack([forward, left, cross(forward, left)]),
        np.full(3, skull),
    )
    fluff = 0.05 * coat.length
    points = np.stack([base, 0.55 * base + 0.45 * nape, nape - 0.1 * skull * forward])
    radii = np.array([1.5, 1.08, 0.92]) * build.neck_thickness + np.array([1.2, 1.0, 0.7]) * fluff
    solids.tube(points, radii, Part.NECK, across=SIDEWAYS, flat=(0.9, 1.0), hair=0.7 * coat.length)
    if collared:
        ring = 1.06 * (1.08 * build.neck_thickness + 0.7 * fluff)
        along = normalised(nape - base)
        axes = np.stack([along, SIDEWAYS, cross(along, SIDEWAYS)])
        own = Frame(0.52 * base + 0.48 * nape, axes, np.array([0.028, 0.9 * ring, ring]))
        solids.blob(own, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), Part.COLLAR)
    add_head(solids, breed, frame, pose)
