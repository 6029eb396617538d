import dataclasses
import json

import numpy as np
import pytest

from benchmarks.groups import __main__ as groups
from benchmarks.groups.matching import (
    Matching,
    Target,
    is_prominent,
    match,
    square_round,
)
from benchmarks.groups.photos import CHOOSING, JUDGING
from benchmarks.groups.scenes import Group, GroupPictures, Person
from smpler.models.detectors import Detection
from smpler.models.detectors.person import BlazePoseDetection
from smpler.utils.image import CROP_SIZE, common_area, iou

CROWDED = 1
"""A picture in which some people hide a part of others."""


@pytest.fixture(scope="module")
def pictures() -> GroupPictures:
    return GroupPictures(seed=0)


@pytest.fixture(scope="module")
def group(pictures) -> Group:
    return pictures.group(CROWDED)


@pytest.fixture(scope="module")
def people(pictures, group) -> tuple[Person, ...]:
    return pictures.labels(group)


def box(*values: float) -> tuple:
    return tuple(float(value) for value in values)


def seen(*values: float) -> Detection:
    return Detection(box(*values), 0.9)


def square(x: float, y: float, side: float, score: float = 0.9) -> BlazePoseDetection:
    middle = (x + side / 2, y + side / 2)
    return BlazePoseDetection(box(x, y, side, side), score, middle, middle)


def subject_mask(pictures: GroupPictures, group: Group, actors: list) -> np.ndarray:
    """(h, w): the first actor's share of the picture's pixels, by the renderer's own mask."""
    width, height = group.size
    side = max(group.size)
    scene = dataclasses.replace(group.scene, actors=tuple(actors))
    mask = pictures.renderer.render(scene, (side - CROP_SIZE) // 2).mask
    top, left = (side - height) // 2, (side - width) // 2
    return mask[top : top + height, left : left + width]


def test_visible_share_is_that_of_the_renderers_masks(pictures, group, people):
    actors = list(group.scene.actors)
    for number, person in enumerate(people):
        others = actors[:number] + actors[number + 1 :]
        together = subject_mask(pictures, group, [actors[number], *others])
        alone = subject_mask(pictures, group, [actors[number]])
        assert person.inside == 1  # else `alone` would lack what is outside
        assert person.visible == pytest.approx(together.sum() / alone.sum(), abs=2e-3)
        row, column = np.nonzero(together)
        left, top, width, height = person.box
        expected = [column.min(), row.min(), column.max() + 1, row.max() + 1]
        assert [left, top, left + width, top + height] == pytest.approx(expected, abs=0.5)
    assert min(person.visible for person in people) < 0.8


def test_what_is_cut_off_counts_as_hidden(pictures, group, people):
    left, top, width, height = people[0].whole
    # a picture of the same camera whose border runs through the first person
    cut = round((left + width / 2 - group.size[0] / 2) / 2) * 2
    half_width = abs(cut) if abs(cut) > 10 else 10
    narrow = dataclasses.replace(group, size=(2 * half_width, group.size[1]))
    person = pictures.labels(narrow)[0]
    assert 0.2 < person.inside < 0.8
    assert person.visible <= person.inside + 1e-6
    shift = (group.size[0] - narrow.size[0]) / 2
    assert person.whole == pytest.approx((left - shift, top, width, height), abs=0.5)
    assert 0 <= person.box[0] and person.box[0] + person.box[2] <= narrow.size[0]


def test_boxes_hold_the_keypoints(group, people):
    for person in people:
        left, top, width, height = person.whole
        places = np.array(group.size) / 2 + group.scene.framing.focal * (
            person.keypoints[:, :2] / person.keypoints[:, 2:]
        )
        assert ((places > [left, top]) & (places < [left + width, top + height])).all()
        assert common_area(person.box, person.whole) == pytest.approx(person.box[2] * person.box[3])


def test_pictures_depend_on_seed_and_number_alone(pictures, group, people, monkeypatch):
    pictures.group(3)
    again = pictures.group(CROWDED)
    np.testing.assert_array_equal(pictures.render(group), pictures.render(again))
    assert [p.box for p in people] == [p.box for p in pictures.labels(again)]
    monkeypatch.setattr(pictures, "seed", 5)
    assert pictures.group(CROWDED).scene.framing.focal != group.scene.framing.focal


def test_groups_are_of_two_to_eight_people_at_the_stated_sizes(pictures):
    drawn = [pictures.group(number) for number in range(24)]
    assert {group.num_people for group in drawn} == set(range(2, 9))
    assert all(640 <= max(group.size) <= 960 for group in drawn)
    assert all(side % 2 == 0 for group in drawn for side in group.size)
    depth = min(a.joints[:, 2].min() for g in drawn for a in g.scene.actors[: g.num_people])
    assert depth > 1


def test_matching_is_one_to_one_and_finds_as_many_as_possible():
    targets = [
        Target(box(0, 0, 10, 10)),
        Target(box(4, 0, 10, 10)),
        Target(box(50, 0, 9, 9), counts=False),
    ]
    detections = [
        seen(2, 0, 10, 10),  # hits both
        seen(0, 0, 10, 9),  # hits the first
        seen(0, 0, 10, 10),  # the first once more
        seen(50, 0, 9, 10),  # someone who does not count
        seen(80, 0, 9, 10),  # nobody
    ]
    assert match(detections, targets) == Matching(((0, 1), (2, 0)), (1, 4))
    assert match([], targets) == Matching((), ())
    assert match(detections, []) == Matching((), (0, 1, 2, 3, 4))


def test_overlap_just_below_the_limit_is_no_hit():
    target = Target(box(0, 0, 10, 10))
    assert match([seen(0, 0, 10, 4.01)], [target]).hits
    assert match([seen(0, 0, 10, 3.99)], [target]).false == (0,)


def test_squares_are_compared_with_the_whole_body():
    target = Target(box(40, 0, 10, 20), whole=box(40, 0, 30, 100))
    assert square_round(target.whole) == pytest.approx((2.5, -2.5, 105, 105))
    assert match([square(2, -3, 105)], [target]).hits == ((0, 0),)
    assert match([seen(2, -3, 105, 105)], [target]).false == (0,)
    assert iou(box(0, 0, 2, 2), box(1, 1, 2, 2)) == pytest.approx(1 / 7)


def test_nobody_is_nearer_to_the_middle_and_larger_than_who_is_prominent():
    middle, larger, aside = box(40, 40, 20, 20), box(20, 20, 30, 40), box(0, 0, 25, 25)
    targets = [
        Target(middle),
        Target(larger),
        Target(aside),
        Target(box(35, 35, 30, 30), None, False),
    ]
    assert [is_prominent(number, targets, (100, 100)) for number in (0, 1, 2)] == [
        True,
        True,
        False,
    ]
    assert not is_prominent(None, targets, (100, 100))
    slightly = [Target(aside), Target(box(40, 40, 25, 27))]
    assert is_prominent(0, slightly, (100, 100))


def test_boxes_of_the_photos_are_boxes():
    for photo in (*CHOOSING, *JUDGING):
        assert len(photo.people) >= 2
        for left, top, right, bottom in (*photo.people, *photo.ignored):
            assert 0 <= left < right and 0 <= top < bottom
    assert len({(p.source, p.frame) for p in (*CHOOSING, *JUDGING)}) >= 8


def test_command_writes_numbers_and_sheet(pictures, tmp_path, capsys, monkeypatch):
    class Nobody:
        @classmethod
        def load(cls):
            return cls()

        def detect(self, image, score_threshold=0.5, max_people=None):
            return []

    monkeypatch.setattr(groups, "GroupPictures", lambda seed: pictures)
    monkeypatch.setattr(groups, "EverybodyDetector", Nobody)
    monkeypatch.setattr(groups, "BlazePosePersonDetector", Nobody)
    paths = [f"--json={tmp_path / 'numbers.json'}", f"--sheet={tmp_path / 'sheet.png'}"]
    assert groups.main(["--num", "2", "--no-photos", "--no-bodies", *paths]) == 0
    result = json.loads((tmp_path / "numbers.json").read_text())
    assert result["rendered A"]["everybody"]["recall"] == 0
    assert result["rendered A"]["everybody"]["people"] > 0
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert "rendered B, blazepose" in capsys.readouterr().out
