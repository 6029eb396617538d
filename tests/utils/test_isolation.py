"""Other people in a picture are made black, the person and the surroundings stay."""

import numpy as np
import pytest

from smpler.utils.image import CropWindow, crop
from smpler.utils.isolation import (
    MAX_SIDE,
    OTHER_MARGIN,
    OWN_MARGIN,
    grown,
    isolated_crop,
    isolated_part,
)

PHOTO = np.random.default_rng(0).integers(1, 255, (400, 600, 3), np.uint8)
OWN, OTHER = (200.0, 100.0, 100.0, 200.0), (270.0, 120.0, 120.0, 180.0)


def inside(box, corner, zoom, shape) -> np.ndarray:
    """The pixels whose middles lie in a box, in a plain loop."""
    x, y, width, height = box
    mask = np.zeros(shape[:2], bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            place = np.array([column + 0.5, row + 0.5]) / zoom + corner
            mask[row, column] = x <= place[0] < x + width and y <= place[1] < y + height
    return mask


def test_in_a_crop_others_are_black_but_for_the_persons_own_box():
    window = CropWindow.for_box(OWN)
    found = isolated_crop(PHOTO, window, OWN, [OTHER])
    plain = crop(PHOTO, window)
    zoom, corner = 224 / window.width, np.array([window.x, window.y])
    other = inside(grown(OTHER, OTHER_MARGIN), corner, zoom, found.shape)
    own = inside(grown(OWN, OWN_MARGIN), corner, zoom, found.shape)
    black = other & ~own
    assert black.sum() > 1000
    assert (found[black] == 0).all() and np.array_equal(found[~black], plain[~black])


def test_a_hidden_box_is_black_in_the_persons_own_box_too():
    window = CropWindow.for_box(OWN)
    found = isolated_crop(PHOTO, window, OWN, [OTHER], hidden=[OTHER])
    zoom, corner = 224 / window.width, np.array([window.x, window.y])
    assert (found[inside(OTHER, corner, zoom, found.shape)] == 0).all()


def test_someone_alone_gets_the_crop_of_the_photo():
    window = CropWindow.for_box(OWN)
    far_away = (500.0, 10.0, 50.0, 50.0)
    for others in ([], [far_away]):
        assert np.array_equal(isolated_crop(PHOTO, window, OWN, others), crop(PHOTO, window))


def test_the_part_is_a_square_round_the_person_within_the_photo():
    part, corner, zoom = isolated_part(PHOTO, OWN, [OTHER])
    assert corner.tolist() == [90, 40] and zoom == 1 and part.shape == (320, 320, 3)
    other, own = (
        inside(grown(box, margin), corner, 1.0, part.shape)
        for box, margin in ((OTHER, OTHER_MARGIN), (OWN, OWN_MARGIN))
    )
    expected = np.where((other & ~own)[..., None], 0, PHOTO[40:360, 90:410])
    assert np.array_equal(part, expected)
    at_the_corner, corner, _ = isolated_part(PHOTO, (-50.0, -60.0, 100.0, 120.0), [])
    assert corner.tolist() == [0, 0] and at_the_corner.shape == (96, 96, 3)


def test_a_large_part_is_a_bounded_copy():
    photo = np.full((5000, 4000, 3), 7, np.uint8)
    part, corner, zoom = isolated_part(photo, (500.0, 100.0, 2000.0, 4800.0), [])
    assert max(part.shape[:2]) == MAX_SIDE and corner.tolist() == [0, 0]
    assert zoom == pytest.approx(MAX_SIDE / 5000)


def test_the_photo_is_not_painted_on():
    before = PHOTO.copy()
    isolated_part(PHOTO, OWN, [OTHER], hidden=[OTHER])
    isolated_crop(PHOTO, CropWindow.for_box(OWN), OWN, [OTHER])
    assert np.array_equal(PHOTO, before)
