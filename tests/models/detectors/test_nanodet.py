import math

import cv2
import numpy as np
import pytest
import torch

from smpler.models.detectors import PersonDetector
from smpler.models.detectors.nanodet import (
    MAX_SIDE,
    NUM_BINS,
    SCORE_THRESHOLD,
    STRIDES,
    Guesses,
    NanoDetPersonDetector,
    cells,
    decode,
    make_picture,
    overlaps,
)
from smpler.utils.image import read_image
from smpler.utils.paths import ROOT, SAMPLES

SIZES = [(480, 640), (1, 1), (2000, 3), (3, 2000), (7, 5), (1, 100_000), (3000, 4000)]
WOMAN = (156, 114, 423, 541)
"""Left, top, right, bottom of the person in im01.png, measured by hand."""


@pytest.fixture(scope="module")
def detector() -> NanoDetPersonDetector:
    return NanoDetPersonDetector.load()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return read_image(SAMPLES / "im01.png")


def corners(box) -> np.ndarray:
    return np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])


def overlap(a, b) -> float:
    pair = (torch.tensor(np.array(box), dtype=torch.float32)[None] for box in (a, b))
    return overlaps(*pair).item()


def test_it_keeps_the_contract_of_person_detectors(detector):
    assert isinstance(detector, PersonDetector)


def test_network_equals_the_published_one(detector):
    golden = np.load(ROOT / "tests" / "golden" / "nanodet.npz")
    image = torch.from_numpy(golden["image"].repeat(4, axis=0).repeat(4, axis=1))
    with torch.no_grad():
        found = detector.network(image.permute(2, 0, 1)[None].float())[0].numpy()
    error = np.abs(found[golden["rows"]] - golden["logits"]).max()
    assert error < 1e-3, f"logits differ by {error:.1e}"
    best = 1 / (1 + np.exp(-golden["logits"][:, 0].max()))
    assert best > 0.5, f"the golden image should show a person, its best score is {best:.2f}"


def test_a_batch_of_two_equals_two_batches_of_one(detector):
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        both = detector.network(images)
        single = torch.cat([detector.network(image[None]) for image in images])
    error = (both - single).abs().max()
    assert both.shape == (2, 12 * 8 + 6 * 4 + 3 * 2, 45) and error < 1e-5, error


def test_cells_and_boxes_equal_a_plain_loop():
    height, width = 64, 96
    rng = np.random.default_rng(0)
    expected, logits = [], []
    for stride in STRIDES:
        for row in range(height // stride):
            for column in range(width // stride):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                weights = rng.normal(0, 2, (4, NUM_BINS))
                shares = [np.exp(side) / np.exp(side).sum() for side in weights]
                left, top, right, bottom = (
                    stride * sum(number * share for number, share in enumerate(side))
                    for side in shares
                )
                expected.append((x - left, y - top, x + right, y + bottom))
                logits.append(weights.flatten())
    sides = torch.tensor(np.array(logits), dtype=torch.float32)
    error = np.abs(decode(sides, cells(height, width)).numpy() - np.array(expected)).max()
    assert error < 1e-4, f"{error:.1e} px"


def test_overlaps_equal_a_count_of_pixels():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 30, (6, 2))
    boxes = np.concatenate([first, first + rng.integers(1, 30, (6, 2))], axis=1)
    masks = np.zeros((6, 60, 60), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    found = overlaps(*(torch.from_numpy(boxes).float(),) * 2)
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("zoom", [0.4, 0.7, 1.5])
def test_a_person_pasted_elsewhere_is_found_there(detector, photo, zoom):
    scene = np.full((960, 1400, 3), 128, np.uint8)
    pasted = cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    left, top = 500, 60
    scene[top : top + pasted.shape[0], left : left + pasted.shape[1]] = pasted[: 960 - top]
    (person,) = detector.detect(scene)
    expected = zoom * np.array(WOMAN) + (left, top, left, top)
    error = np.abs(corners(person.box) - expected).max() / (expected[3] - expected[1])
    assert error < 0.06, f"{corners(person.box)} instead of {expected}: {error:.3f} of the height"


def test_two_people_who_overlap_are_two(detector, photo):
    left, top, right, bottom = 130, 60, 450, 560
    scene = np.broadcast_to(photo[300, 20], (700, 1000, 3)).copy()
    for step in (0, 200):
        start = 200 + step
        scene[100:600, start : start + 320] = photo[top:bottom, left:right]
    found = detector.detect(scene)
    assert len(found) == 2, found
    expected = [np.array(WOMAN) + (70 + step, 40, 70 + step, 40) for step in (0, 200)]
    assert overlap(*expected) > 0.1
    for person, box in zip(sorted(found, key=lambda p: p.box), expected, strict=True):
        assert overlap(corners(person.box), box) > 0.7, f"{corners(person.box)} for {box}"


def test_everybody_in_the_samples_is_found_best_first_and_inside(detector):
    counts = {"im01.png": 1, "im02.jpg": 2, "im03.jpg": 1, "im04.jpg": 1, "im06.jpg": 1}
    for name, count in counts.items():
        image = read_image(SAMPLES / name)
        found = detector.detect(image)
        scores = [person.score for person in found]
        assert len(found) == count, f"{name}: {found}"
        assert scores == sorted(scores, reverse=True) and SCORE_THRESHOLD <= scores[-1] <= 1
        for person in found:
            left, top, right, bottom = corners(person.box)
            assert 0 <= left < right <= image.shape[1] + 1e-3, person
            assert 0 <= top < bottom <= image.shape[0] + 1e-3, person


def test_arguments_limit_the_people(detector):
    image = read_image(SAMPLES / "im02.jpg")
    found = detector.detect(image)
    assert detector.detect(image, max_people=1) == found[:1]
    assert detector.detect(image, score_threshold=0.99) == []
    more = detector.detect(image, score_threshold=0.0)
    assert len(more) > len(found) and min(person.score for person in more) >= 0.1


def test_a_very_large_photo_gives_the_boxes_of_the_smaller_one(detector, photo):
    large = cv2.resize(photo, None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR)
    assert max(large.shape) > MAX_SIDE
    before, after = (detector.detect(image)[0].box for image in (photo, large))
    error = np.abs(np.array(after) / 6 - before).max()
    assert error < 0.02 * before[3], f"{after} is not 6 times {before}: {error:.1f} px"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [0, 255])
def test_plain_images_of_any_size_hold_nobody(detector, size, level):
    assert detector.detect(np.full((*size, 3), level, np.uint8)) == []


def test_thin_and_tiny_photos_are_searched(detector, photo):
    for image in (photo[300:301], photo[:, 250:253], photo[300:301, 250:251], photo[::60, ::60]):
        for person in detector.detect(image, score_threshold=0.0):
            assert math.isfinite(sum(person.box)) and min(person.box[2:]) > 0, person


def test_a_picture_is_the_photo_at_the_top_left_of_black():
    image = np.full((100, 300, 3), 200, np.uint8)
    picture, (width, height) = make_picture(image, 416)
    assert picture.shape == (160, 416, 3) and (width, height) == (416, 139)
    assert (picture[:height] == 200).all() and not picture[height:].any()


def guesses(*people: tuple[float, float, float, float, float]) -> Guesses:
    """People by left, top, right, bottom and score."""
    values = torch.tensor(people, dtype=torch.float32).reshape(-1, 5)
    return Guesses(values[:, :4], values[:, 4])


def answer(monkeypatch, near: Guesses, far: Guesses, **limits) -> list[tuple]:
    """Corners and scores of the people in a photo of 100 x 100, of which two pictures show this."""
    detector = NanoDetPersonDetector()
    monkeypatch.setattr(detector, "_look", lambda image, side, size: near if side < 500 else far)
    found = detector.detect(np.zeros((100, 100, 3), np.uint8), **limits)
    return [(*corners(person.box).tolist(), round(person.score, 3)) for person in found]


def test_large_people_are_taken_from_the_small_picture_and_small_ones_from_the_large(monkeypatch):
    both = guesses((0, 0, 20, 50, 0.9), (50, 50, 60, 80, 0.6))
    assert answer(monkeypatch, both, guesses()) == [(0, 0, 20, 50, 0.6)]
    assert answer(monkeypatch, guesses(), both) == [(50, 50, 60, 80, 0.4)]


def test_a_person_in_both_pictures_needs_less_and_gets_the_weighted_mean(monkeypatch):
    near = guesses((0, 0, 20, 50, 0.42))
    assert answer(monkeypatch, near, guesses()) == []
    assert answer(monkeypatch, near, guesses((0, 0, 10, 50, 0.3))) == [(0, 0, 20, 50, 0.38)]
    assert answer(monkeypatch, near, guesses((0, 0, 8, 50, 0.9))) == []  # shows somebody else
    unlikely = guesses((0, 0, 20, 50, 0.14))
    assert answer(monkeypatch, unlikely, guesses((0, 0, 20, 50, 1))) == []


def test_of_two_boxes_of_one_person_the_large_one_stays(monkeypatch):
    near, far = guesses((0, 0, 20, 46, 0.6)), guesses((0, 0, 20, 44, 0.9))
    assert answer(monkeypatch, near, far) == [(0, 0, 20, 46, 0.7)]
    beside = guesses((0, 0, 20, 46, 0.6), (8, 0, 28, 46, 0.6))  # an overlap of 0.43
    assert answer(monkeypatch, beside, guesses()) == [(0, 0, 20, 46, 0.4)]
    apart = guesses((0, 0, 20, 46, 0.6), (9, 0, 29, 46, 0.6))  # 0.38
    assert len(answer(monkeypatch, apart, guesses())) == 2


def test_weights_that_are_missing_or_others_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.npz is missing"):
        NanoDetPersonDetector.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz does not fit the model"):
        NanoDetPersonDetector.load(tmp_path / "other.npz")
