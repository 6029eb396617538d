import math
import sys

import cv2
import numpy as np
import pytest
import torch

from scripts.build import person_detector
from smpler.models.detectors.blazepose import anchor_points
from smpler.models.detectors.person import BlazePoseDetection, BlazePosePersonDetector
from smpler.utils.paths import ROOT, SAMPLES

# Measured by hand in the samples: left, top, right, bottom of each person's body, in pixels.
PEOPLE = {
    "im01.png": [(156, 114, 423, 534)],
    "im02.jpg": [(326, 28, 585, 318), (930, 385, 1020, 672)],
    "im03.jpg": [(158, 107, 527, 778)],
    "im04.jpg": [(157, 99, 483, 650)],
}
# Points on the two people who are only half in the picture: chin and chest.
HALF_BODIES = {"im05.jpg": [(270, 120), (260, 280)], "im06.jpg": [(200, 150), (120, 250)]}


@pytest.fixture(scope="module")
def detector() -> BlazePosePersonDetector:
    return BlazePosePersonDetector.load()


def read(name: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(SAMPLES / name)), cv2.COLOR_BGR2RGB)


def crop_edges(person: BlazePoseDetection) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the crop: 1.2 times the box, about its centre."""
    x, y, w, h = person.box
    return x - 0.1 * w, y - 0.1 * h, x + 1.1 * w, y + 1.1 * h


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return math.dist(a, b)


def test_network_equals_the_published_one(detector):
    golden = np.load(ROOT / "tests" / "golden" / "person_detector.npz")
    image = torch.from_numpy(golden["image"].repeat(4, axis=0).repeat(4, axis=1))
    with torch.no_grad():
        values, logits = detector.network(image.permute(2, 0, 1)[None] / 127.5 - 1)
    value_error = np.abs(values[0, ::8].numpy() - golden["values"]).max()
    logit_error = np.abs(logits[0].numpy() - golden["logits"]).max()
    assert value_error < 5e-3, f"values differ by {value_error:.1e} px"
    assert logit_error < 5e-3, f"logits differ by {logit_error:.1e}"
    best = 1 / (1 + np.exp(-golden["logits"].max()))
    assert best > 0.5, f"the golden image should show a person, its best score is {best:.2f}"


def test_anchors_are_the_centres_of_their_cells():
    anchors = anchor_points()
    for start, count, stride in ((0, 2 * 28**2, 8), (1568, 2 * 14**2, 16), (1960, 6 * 7**2, 32)):
        grid = anchors[start : start + count]
        assert torch.all(grid % stride == stride / 2), f"stride {stride}: {grid[:3].tolist()}"
        assert len(torch.unique(grid, dim=0)) == (224 // stride) ** 2
        assert grid[-1].tolist() == [224 - stride / 2] * 2
        assert grid[count // (224 // stride) - 1, 0] > grid[0, 0], "the first row runs along x"
    assert len(anchors) == 2254


@pytest.mark.parametrize("name", PEOPLE)
def test_crop_holds_the_whole_person_and_little_more(detector, name):
    found = detector.detect(read(name))
    assert len(found) == len(PEOPLE[name]), f"{len(found)} people in {name}: {found}"
    for left, top, right, bottom in PEOPLE[name]:
        middle = ((left + right) / 2, (top + bottom) / 2)
        person = min(found, key=lambda person: distance(person.hip_center, middle))
        edges = crop_edges(person)
        margins = [left - edges[0], top - edges[1], edges[2] - right, edges[3] - bottom]
        assert min(margins) > 0, f"{name}: the crop {edges} cuts the body by {-min(margins):.0f} px"
        filled = max(right - left, bottom - top) / (edges[2] - edges[0])
        assert 0.7 < filled < 0.95, f"{name}: the body fills {filled:.2f} of the crop"


@pytest.mark.parametrize("name", HALF_BODIES)
def test_half_bodies_are_found(detector, name):
    found = detector.detect(read(name))
    assert len(found) == 1, f"{len(found)} people in {name}: {found}"
    left, top, right, bottom = crop_edges(found[0])
    for x, y in HALF_BODIES[name]:
        assert left < x < right and top < y < bottom, f"{(x, y)} is outside {found[0].box}"


def test_box_is_a_square_about_the_hips_with_the_shoulders_above(detector):
    person = detector.detect(read("im01.png"))[0]
    x, y, w, h = person.box
    assert abs(w - h) < 1e-2, f"{w} x {h}"
    assert distance((x + w / 2, y + h / 2), person.hip_center) < 1e-2, person
    assert distance(person.hip_center, (312, 330)) < 25, f"hips at {person.hip_center}"
    assert distance(person.shoulder_center, (318, 195)) < 25, f"shoulders: {person.shoulder_center}"


def test_best_come_first_and_arguments_limit_them(detector):
    photo = read("im02.jpg")
    found = detector.detect(photo)
    scores = [person.score for person in found]
    assert scores == sorted(scores, reverse=True) and 0.5 < min(scores) <= max(scores) <= 1, scores
    assert detector.detect(photo, max_people=1) == found[:1]
    assert detector.detect(photo, score_threshold=0.999) == []


def test_padding_the_photo_moves_the_box(detector):
    photo = read("im01.png")
    before = detector.detect(photo)[0]
    padded = cv2.copyMakeBorder(photo, 37, 200, 150, 11, cv2.BORDER_REPLICATE)
    after = detector.detect(padded)[0]
    side = before.box[2]
    moved = np.subtract(after.hip_center, before.hip_center)
    error = np.abs(moved - (150, 37)).max()
    assert error < 0.04 * side, f"hips moved by {moved}, {error:.1f} px off; the box is {side:.0f}"
    ratio = after.box[2] / side
    assert 0.92 < ratio < 1.08, f"the box became {ratio:.3f} as large"


def test_scaling_the_photo_scales_the_box(detector):
    photo = read("im04.jpg")
    before = np.array(detector.detect(photo)[0].box)
    small = cv2.resize(photo, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    after = np.array(detector.detect(small)[0].box) / 0.4
    error = np.abs(after - before).max() / before[2]
    assert error < 0.05, f"{before} became {after}: {error:.3f} of the box"


def test_someone_of_a_seventh_of_the_photo_is_found(detector):
    photo = read("im01.png")
    scene = np.full((1500, 2000, 3), 128, np.uint8)
    small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    scene[900 : 900 + small.shape[0], 1300 : 1300 + small.shape[1]] = small
    found = detector.detect(scene)
    expected = np.multiply(detector.detect(photo)[0].hip_center, 0.5) + (1300, 900)
    assert len(found) == 1, f"{len(found)} people"
    error = distance(found[0].hip_center, tuple(expected))
    assert error < 15, f"hips at {found[0].hip_center}, {error:.0f} px from {expected}"


@pytest.mark.parametrize("size", [(480, 640), (1, 1), (1, 3000), (3000, 2), (7, 5), (3000, 4000)])
def test_black_images_of_any_size_hold_nobody(detector, size):
    found = detector.detect(np.zeros((*size, 3), np.uint8))
    assert found == [], f"{size}: {found}"


def test_a_view_may_leave_the_photo_on_every_side(detector):
    photo = read("im01.png")[190:380, 250:390]  # chest to thighs: the body leaves on all four sides
    for person in detector.detect(photo, score_threshold=0.1):
        assert 0.1 < person.score <= 1 and math.isfinite(sum(person.box)), person


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.npz is missing"):
        BlazePosePersonDetector.load(tmp_path / "nothing.npz")


def test_building_without_its_package_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setattr(sys, "argv", ["person_detector"])
    assert person_detector.main() == 2
    assert "pip install -r requirements-assets.txt" in capsys.readouterr().err
