"""What several cameras see of one person, moment by moment, and where the joints then are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from benchmarks.multiview.cameras import Camera, triangulate
from smpler.models.detectors.landmarks import SEEN
from smpler.utils.image import Box, CropWindow

MAX_OFFSET = 6
"""Largest difference between the starts of two cameras, in steps."""
MIN_VIEWS = 3
"""Number of cameras that must see a joint."""
LEAVE_OUT_RATIO = 0.5
"""A camera is left out if the others' error without it is below this share of the error with it."""
MAX_REPROJECTION = 30.0
"""Largest error of a known joint, mean over the cameras, in pixels of a 1080 x 1920 frame."""
REALIGNED_RATIO = 0.5
"""A camera was turned after its calibration if the solved pose's error is below this share of the
calibrated one's."""
_THIGH = [SEEN.index("L_Hip"), SEEN.index("L_Knee")]


@dataclass(frozen=True, eq=False)
class View:
    """A frame of one camera: the person's crop, and where MoveNet sees the joints."""

    photo: UInt8[np.ndarray, "h w 3"]
    window: CropWindow
    rays: Float[np.ndarray, "12 2"]
    visible: Float[np.ndarray, "12"]
    """MoveNet's visibility of each joint; 0 where it is below MIN_VISIBILITY."""
    box: Box | None = None
    """Of the person; None: the window's."""
    others: tuple[Box, ...] = ()
    """Boxes of other people in the photo."""


Video = list[View | None]


@dataclass(frozen=True, eq=False)
class Case:
    """A view with the person's joints."""

    view: View
    camera: Camera
    joints: Float[np.ndarray, "12 3"]
    """Camera frame, metres; in the order of `SEEN`."""
    errors: Float[np.ndarray, "12"]
    """How well the cameras agree on each joint, see `triangulate`."""


def in_step(
    videos: Sequence[Video], cameras: Sequence[Camera], max_offset: int = MAX_OFFSET
) -> tuple[list[Camera], list[int]]:
    """Return the cameras and how many steps each video lags behind the first.

    A camera that was turned after its calibration does not agree with the others at any lag. Of
    four, the three that agree best are trusted; the pose of the fourth is solved anew from the
    joints that these see, and replaces the calibrated one when it explains much more.
    """
    offsets = find_offsets(videos, cameras, max_offset)
    if len(cameras) <= MIN_VIEWS:
        return list(cameras), offsets
    rests = []
    for number in range(len(cameras)):
        rest = [other for other in range(len(cameras)) if other != number]
        lags = find_offsets([videos[x] for x in rest], [cameras[x] for x in rest], max_offset)
        error = _disagreement(
            [videos[x] for x in rest], [cameras[x] for x in rest], lags, max_offset
        )
        rests.append((error, number, rest, lags))
    _, number, rest, lags = min(rests)
    moments = range(min(map(len, videos)))
    known = [
        triangulated(views_at([videos[x] for x in rest], moment, lags), [cameras[x] for x in rest])
        for moment in moments
    ]
    tried = []
    for lag in range(-max_offset, max_offset + 1):
        points, rays = [], []
        for moment, (joints, errors) in zip(moments, known, strict=True):
            (view,) = views_at([videos[number]], moment, [lag])
            if view is not None:
                seen = (errors < MAX_REPROJECTION) & (view.visible > 0)
                points.append(joints[seen])
                rays.append(view.rays[seen])
        points, rays = np.concatenate(points), np.concatenate(rays)
        solved = cameras[number].posed_by(points, rays)
        before, after = (camera.away(points, rays) for camera in (cameras[number], solved))
        tried.append((after, abs(lag), lag, before, solved))
    after, _, lag, before, solved = min(tried, key=lambda row: row[:3])
    if after > REALIGNED_RATIO * before:
        return list(cameras), offsets
    cameras, offsets = list(cameras), [0] * len(cameras)
    cameras[number] = solved
    for other, other_lag in zip([*rest, number], [*lags, lag], strict=True):
        offsets[other] = other_lag
    return cameras, [offset - offsets[0] for offset in offsets]


def find_offsets(
    videos: Sequence[Video], cameras: Sequence[Camera], max_offset: int = MAX_OFFSET
) -> list[int]:
    """Return how many steps each video lags behind the first; with these lags, views agree best."""
    offsets = [0] * len(videos)
    for _ in range(2):
        for number in range(1, len(videos)):
            tried = []
            for by in range(-max_offset, max_offset + 1):
                lags = [*offsets[:number], by, *offsets[number + 1 :]]
                tried.append((_disagreement(videos, cameras, lags, max_offset), abs(by), by))
            offsets[number] = min(tried)[-1]
    return offsets


def _disagreement(
    videos: Sequence[Video], cameras: Sequence[Camera], offsets: Sequence[int], margin: int
) -> float:
    """Return the median error of the joints of some moments, pixels."""
    moments = range(margin, min(map(len, videos)) - margin, 3)
    errors = [triangulated(views_at(videos, m, offsets), cameras)[1] for m in moments]
    return float(np.nanmedian(np.concatenate(errors)))


def views_at(videos: Sequence[Video], moment: int, offsets: Sequence[int]) -> list[View | None]:
    """Return all cameras' views of one moment, counted in steps of the first."""
    numbers = [moment + offset for offset in offsets]
    return [
        video[n] if 0 <= n < len(video) else None for video, n in zip(videos, numbers, strict=True)
    ]


def triangulated(
    views: Sequence[View | None], cameras: Sequence[Camera]
) -> tuple[Float[np.ndarray, "12 3"], Float[np.ndarray, "12"]]:
    """Return the joints in the world, metres, and how well views agree, pixels; NaN if unknown."""
    joints, errors = np.full((len(SEEN), 3), np.nan), np.full(len(SEEN), np.nan)
    for joint in range(len(SEEN)):
        seen = rays_to(joint, views, cameras)
        if len(seen) < MIN_VIEWS:
            continue
        joints[joint], errors[joint] = triangulate(seen)
        for left_out in range(len(seen)) if len(seen) > MIN_VIEWS else ():
            place, error = triangulate([*seen[:left_out], *seen[left_out + 1 :]])
            if error < LEAVE_OUT_RATIO * errors[joint]:
                joints[joint], errors[joint] = place, error
    return joints, errors


def rays_to(
    joint: int, views: Sequence[View | None], cameras: Sequence[Camera]
) -> list[tuple[Camera, Float[np.ndarray, "2"], float]]:
    """Return each camera that sees a joint, the ray on which it does, and how surely."""
    return [
        (camera, view.rays[joint], float(view.visible[joint]))
        for view, camera in zip(views, cameras, strict=True)
        if view is not None and view.visible[joint] > 0
    ]


def known_views(
    videos: Sequence[Video], cameras: Sequence[Camera], offsets: Sequence[int], every: int = 2
) -> Iterator[Case]:
    """Yield each view of a moment at which all joints are known.

    Args:
        videos: of one person.
        cameras: that took them.
        offsets: see `find_offsets`.
        every: step from one moment that is used to the next.
    """
    for moment in range(0, len(videos[0]), every):
        views = views_at(videos, moment, offsets)
        joints, errors = triangulated(views, cameras)
        if (errors < MAX_REPROJECTION).all():
            for view, camera in zip(views, cameras, strict=True):
                if view is not None:
                    yield Case(view, camera, camera.see(joints), errors)


def thigh_spread(cases: Sequence[Case]) -> float:
    """Return the standard deviation of a thigh's length [m]: how exact the known joints are."""
    return float(np.std([np.linalg.norm(np.diff(case.joints[_THIGH], axis=0)) for case in cases]))
