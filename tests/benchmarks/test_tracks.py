"""Tracks are counted as a viewer would count them."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import tracks as module
from benchmarks.tracks import PEOPLE, counted

MAN_THEN_WOMAN = (("man", 0, 100), ("woman", 101, 230))


def track_of(number, frames, boxes):
    return SimpleNamespace(
        track=number, frames=np.array(frames), box=np.array(boxes, float), fps=30.0
    )


def tracks_of(*ways):
    """One track for each list of (person, first frame, last frame)."""
    found = []
    for number, way in enumerate(ways, start=1):
        frames, boxes = [], []
        for person, first, last in way:
            for frame, box in PEOPLE[person].items():
                if first <= frame <= last:
                    frames.append(frame)
                    boxes.append(box)
        found.append(track_of(number, frames, boxes))
    return found


@pytest.mark.parametrize(
    ("ways", "found", "switches", "strangers"),
    [
        ([[("man", 0, 230)], [("woman", 0, 230)]], 2, 0, False),
        ([[("man", 0, 230)]], 1, 0, False),
        ([[("man", 0, 100)], [("man", 101, 230)], [("woman", 0, 230)]], 2, 1, False),
        (
            [[("man", 0, 100), ("woman", 101, 230)], [("woman", 0, 100), ("man", 101, 230)]],
            2,
            2,
            False,
        ),
    ],
)
def test_switches_are_counted(ways, found, switches, strangers):
    numbers = counted(tracks_of(*ways))
    assert (numbers["found"], numbers["switches"]) == (found, switches)
    assert bool(numbers["strangers, s"]) == strangers


def test_a_track_of_nobody_is_a_stranger():
    tracks = tracks_of([("man", 0, 230)], [("woman", 0, 230)])
    nobody = track_of(3, np.arange(45), np.full((45, 4), 5.0))
    assert counted([*tracks, nobody])["strangers, s"] == 1.5


def test_boxes_are_inside_the_video_and_of_people():
    for places in module.PEOPLE.values():
        for x, y, width, height in places.values():
            assert 0 <= x < 1768 and 0 <= y < 994 and 80 < width < 320 and 140 < height < 450
