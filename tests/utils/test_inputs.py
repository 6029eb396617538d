"""What a user gives wrongly is named, whatever its type."""

from inspect import unwrap

import numpy as np
import pytest

from smpler.utils.image import Photo
from smpler.utils.inputs import checked_count, focal_length_of

PHOTO = Photo(np.zeros((300, 400, 3), np.uint8), "a.jpg", None)


@pytest.mark.parametrize("given", ["3", 2.5, True, 0, -1, None])
def test_a_number_of_people_is_whole_and_at_least_1(given):
    with pytest.raises(ValueError, match=f"max_people is {given!r}; it is a whole number"):
        unwrap(checked_count)(given)  # tests would refuse other types before
    assert unwrap(checked_count)(np.int64(3)) == checked_count(3) == 3


@pytest.mark.parametrize("given", ["500", True, float("nan"), -1.0, 0.0, 99.0, 25_001.0, 1e300])
def test_a_focal_length_is_a_plausible_number_of_pixels(given):
    with pytest.raises(ValueError, match="of a.jpg it is a number of pixels between 100 and 25000"):
        unwrap(focal_length_of)(PHOTO, given)
    assert unwrap(focal_length_of)(PHOTO, 400) == (400.0, "given")
    assert unwrap(focal_length_of)(PHOTO, np.float32(100.0)) == (100.0, "given")
