from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import side_views
from benchmarks.side_views import FRONT, TOP, seen_from, sheet
from smpler.utils.image import Photo

SIDE = 96


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(side_views, "SIDE", SIDE)


@pytest.fixture(scope="module")
def person():
    """A rod that is thrice as high as wide, and leans towards the camera by 45 degrees."""
    corners = np.array(
        [[x, y, z] for x in (-1, 1) for y in (-3, 3) for z in (-1, 1)], dtype=np.float32
    )
    corners[:, 2] += corners[:, 1]  # what is up, y below 0, is nearer
    faces = np.array(
        [
            (0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1),
            (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3),
        ]
    )  # fmt: skip
    return SimpleNamespace(
        vertices=0.2 * corners,
        faces=faces,
        translation=np.array([0, 0, 4.0]),
        focal_length=200.0,
        principal_point=np.array([100.0, 80.0]),
        crop=np.array([20, 0, 160, 160]),
    )


def covered(picture: np.ndarray) -> np.ndarray:
    """Say where a body is: the ground is grey."""
    return np.ptp(picture.astype(int), axis=2) > 8


def test_a_body_that_falls_towards_the_camera_leans_to_the_right_in_the_side_view(person):
    body = covered(seen_from(person, np.eye(3)))
    rows = np.flatnonzero(body.any(axis=1))
    top, bottom = (np.flatnonzero(body[row]).mean() for row in (rows[2], rows[-3]))
    assert top > bottom + SIDE / 4, (top, bottom)


def test_from_the_front_it_is_a_column_and_from_above_its_head_is_at_the_camera(person):
    front = covered(seen_from(person, FRONT))
    height, width = (np.ptp(np.flatnonzero(front.any(axis=axis))) for axis in (1, 0))
    assert 2.5 < height / width < 3.5
    above = seen_from(person, TOP)
    rows = np.flatnonzero(covered(above).any(axis=1))
    height, width = np.ptp(rows), np.ptp(np.flatnonzero(covered(above).any(axis=0)))
    assert 3.5 < height / width < 4.5  # of 8 in depth, 2 across


def test_a_sheet_holds_four_pictures(person):
    photo = Photo(np.full((160, 200, 3), 90, np.uint8), "photo", None)
    assert sheet(photo, person).shape == (SIDE, 4 * SIDE, 3)
