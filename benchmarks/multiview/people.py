"""Who is who, when several people are seen by several cameras.

The cameras' views of one person meet in space; views of different people do not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from benchmarks.multiview.cameras import Camera, triangulate
from benchmarks.multiview.views import MIN_VIEWS, Video, View, rays_to, triangulated
from smpler.models.detectors.landmarks import SEEN

MIN_JOINTS = 8
"""Joints that must be seen by enough cameras, for views to be compared."""
MAX_DISAGREEMENT = 25.0
"""Median over the joints of the error of `triangulate`, up to which views are of one person."""
MAX_AWAY = 0.5
"""Metres from where a person is known to stand, up to which somebody is that person."""
_HIPS = [SEEN.index(f"{side}_Hip") for side in "LR"]


@dataclass(frozen=True, eq=False)
class Person:
    """Someone at one moment."""

    views: tuple[View | None, ...]
    """By each camera."""
    hips: Float[np.ndarray, "3"]
    """Middle of the hips in the world, metres; NaN if no hip is known."""


def match(looks: Sequence[Sequence[View]], cameras: Sequence[Camera]) -> list[Person]:
    """Return the people of one moment: combinations of views, no view in two of them.

    Of all combinations of at least MIN_VIEWS cameras whose rays meet, those of most cameras come
    first, and of these the one that agrees best.

    Args:
        looks: whom each camera sees.
        cameras: that see them.
    """
    tried = []
    for views in product(*[[None, *seen] for seen in looks]):
        count = sum(view is not None for view in views)
        if count >= MIN_VIEWS:
            error = disagreement(views, cameras)
            if error < MAX_DISAGREEMENT:
                tried.append((-count, error, views))
    people, taken = [], set()
    for _, _, views in sorted(tried, key=lambda entry: entry[:2]):
        own = {id(view) for view in views if view is not None}
        if not own & taken:
            taken |= own
            hips = triangulated(views, cameras)[0][_HIPS]
            known = hips[~np.isnan(hips).any(axis=1)]
            middle = known.mean(axis=0) if len(known) else np.full(3, np.nan)
            people.append(Person(views, middle))
    return people


def disagreement(views: Sequence[View | None], cameras: Sequence[Camera]) -> float:
    """Return how far views are from one person: the joints' median error, pixels.

    Infinite when fewer than MIN_JOINTS joints are seen by at least MIN_VIEWS cameras.
    """
    of_each = [rays_to(joint, views, cameras) for joint in range(len(SEEN))]
    errors = [triangulate(rays)[1] for rays in of_each if len(rays) >= MIN_VIEWS]
    return float(np.median(errors)) if len(errors) >= MIN_JOINTS else np.inf


def follow(
    looks: Sequence[Sequence[Sequence[View]]],
    cameras: Sequence[Camera],
    place: Float[np.ndarray, "2"],
) -> list[Video]:
    """Return the views of the person who stays at a place, None where there is none.

    Args:
        looks: whom each camera sees in each of its frames.
        cameras: that see them.
        place: where the person stands, x and y of the world, metres.
    """
    videos: list[Video] = [[] for _ in cameras]
    for moment in zip(*looks, strict=True):
        person = _at(place, match(moment, cameras))
        for video, view in zip(videos, _views_of(person, cameras), strict=True):
            video.append(view)
    return videos


def _at(place: Float[np.ndarray, "2"], people: Sequence[Person]) -> Person | None:
    """Return who is nearest to a place, if that is nearer than MAX_AWAY."""
    away = [float(np.linalg.norm(person.hips[:2] - place)) for person in people]
    near = [(x, person) for x, person in zip(away, people, strict=True) if x < MAX_AWAY]
    return min(near, key=lambda entry: entry[0])[1] if near else None


def _views_of(person: Person | None, cameras: Sequence[Camera]) -> Iterator[View | None]:
    yield from person.views if person is not None else [None] * len(cameras)
