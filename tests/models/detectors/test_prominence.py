import pytest

from smpler.models.detectors import Detection, prominence

SIZE = (1000, 500)
MIDDLE = (450.0, 150.0, 100.0, 200.0)


def seen(x: float, y: float, width: float, height: float, score: float = 0.8) -> Detection:
    return Detection((float(x), float(y), float(width), float(height)), score)


@pytest.mark.parametrize(
    "other",
    [
        seen(450, 200, 100, 100),  # smaller
        seen(850, 150, 100, 200),  # farther from the middle
        seen(*MIDDLE, score=0.4),  # doubtful
        seen(900, 0, 5000, 500),  # large only outside the photo
    ],
)
def test_large_central_and_sure_people_come_first(other):
    person = seen(*MIDDLE)
    assert prominence([person, other], SIZE) == [0, 1]
    assert prominence([other, person], SIZE) == [1, 0]


def test_of_certain_people_the_larger_one_comes_first_whatever_the_score():
    assert prominence([seen(*MIDDLE, score=0.99), seen(440, 150, 120, 200, 0.55)], SIZE) == [1, 0]


def test_a_small_person_in_the_middle_is_behind_a_large_one_beside():
    assert prominence([seen(480, 220, 20, 60, 0.9), seen(600, 50, 200, 400, 0.6)], SIZE) == [1, 0]


def test_the_photos_scale_does_not_matter_and_equals_keep_their_order():
    people = [seen(100, 100, 100, 300), seen(*MIDDLE), seen(*MIDDLE), seen(700, 50, 200, 400)]
    larger = [seen(*(3 * side for side in p.box), score=p.score) for p in people]
    order = prominence(people, SIZE)
    assert order == prominence(larger, (3000, 1500))
    assert order.index(1) < order.index(2)
    assert prominence([], SIZE) == []
