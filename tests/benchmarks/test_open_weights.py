from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from benchmarks import harness, open_weights, real_photos
from smpler.datasets.engine.framing import Framing
from smpler.datasets.engine.stream import VALIDATION_SEED, SyntheticPeople
from smpler.models.body import open_body
from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.landmarks import SEEN_KEYPOINTS
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.models.predictor import Predictor
from smpler.models.smpler import PRESETS, build_smpler
from smpler.utils.image import CROP_SIZE, CropWindow, read_image
from smpler.utils.paths import SAMPLES
from tests.support.standin_wardrobe import Poses, wardrobe


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_smpler(PRESETS["smpler-lite-backbone"], open_body()).eval()


@pytest.fixture
def framing() -> Framing:
    return Framing(
        focal=1500.0,
        center=np.array([90.0, 140.0]),
        rotation=0.4,
        borders=np.array([-100.0, -70.0, 95.0, 300.0]),
        box_center=np.array([120.0, 90.0]),
        scale=1.3,
    )


def test_a_moved_crop_shows_the_same_photo(framing):
    shift, growth = np.array([20.0, -9.0]), 1.2
    moved = framing.moved(shift, growth)
    points = np.random.default_rng(0).normal(0, 0.2, (200, 3)) + [0, 0, 4]
    before, after = framing.project(points), moved.project(points)
    expected = (before - CROP_SIZE / 2 - shift) / growth + CROP_SIZE / 2
    assert np.abs(after - expected).max() < 1e-9
    inside = framing.inside(before)
    assert 0 < inside.sum() < len(inside), "the points say nothing of the borders"
    assert np.array_equal(inside, moved.inside(after))
    for old, new in zip(to_photo(framing, before), to_photo(moved, after), strict=True):
        assert np.abs(old - new).max() < 1e-9


def to_photo(framing: Framing, places: np.ndarray) -> np.ndarray:
    """Photo pixels of crop pixels: the turn undone, then scaled and moved."""
    cos, sin = np.cos(framing.rotation), np.sin(framing.rotation)
    upright = (places - CROP_SIZE / 2) @ np.array([[cos, -sin], [sin, cos]])
    return framing.box_center + upright * 200 * framing.scale / CROP_SIZE


def test_jitter_stays_within_its_bounds_and_differs_between_samples(framing):
    moved = [open_weights.jitter(framing, 0.1, seed) for seed in range(300)]
    growth = np.array([crop.scale / framing.scale for crop in moved])
    assert 0.9 <= growth.min() < 0.91 and 1.09 < growth.max() <= 1.1
    places = np.array([crop.box_center for crop in moved]) - framing.box_center
    distance = np.linalg.norm(places, axis=1).max() / (200 * framing.scale)
    assert 0.12 < distance <= 0.1 * 2**0.5, distance
    assert open_weights.jitter(framing, 0.1, 7).focal == moved[7].focal


def test_without_jitter_the_crops_are_the_validation_sets(monkeypatch):
    stream, clothes = SyntheticPeople.__init__, wardrobe(open_body())

    def with_clothes(self, body, poses=None, **arguments):
        stream(self, body, clothes, Poses(), **arguments)

    monkeypatch.setattr(SyntheticPeople, "__init__", with_clothes)
    plain = SyntheticPeople(open_body(), split="val", seed=VALIDATION_SEED).first(2)
    same, moved = (open_weights.crops(open_body(), 2, amount) for amount in (0.0, 0.2))
    assert torch.equal(plain[1]["image"], same[1]["image"])
    assert not torch.equal(plain[1]["image"], moved[1]["image"])
    assert torch.equal(plain[1]["keypoints_3d"], moved[1]["keypoints_3d"])


def test_a_model_that_mirrors_perfectly_has_no_mirror_difference(model):
    images = torch.rand(2, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))
    order = list(open_weights.mirrored(open_weights.KEYPOINT_NAMES))
    keypoints = torch.randn(2, 14, 3, generator=torch.Generator().manual_seed(1))

    def perfect(batch):
        found = keypoints if torch.equal(batch, images) else keypoints[:, order] * sign
        return [SimpleNamespace(keypoints_3d=found)]

    sign = torch.tensor([-1.0, 1.0, 1.0])
    perfect.mean = model.mean
    differences = []
    open_weights.watch_mirroring(perfect, differences)({"image": images})
    assert torch.cat(differences).max() == 0
    open_weights.watch_mirroring(model, differences)({"image": images})
    assert differences[-1].min() > 1e-3, "an untrained model does not mirror"


def test_the_demos_way_with_crops_is_what_the_demo_does_with_photos():
    photo = read_image(SAMPLES / "im01.png")
    crop = cv2.resize(photo[60:580, 18:538], (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    grey = np.full_like(crop, 128)
    predictor = Predictor.load(device="cpu")
    images = torch.from_numpy(np.stack([crop, grey])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        (found,) = open_weights.DemosWay(predictor)(images)
    window = CropWindow(0, 0, CROP_SIZE, CROP_SIZE)
    for number, picture in enumerate((crop, grey)):
        answer = predictor.look(picture, [window]).people.estimate
        assert torch.equal(found.vertices[number], answer.vertices[0])
    plain = Predictor(predictor.model).look(crop, [window]).people.estimate
    assert (found.vertices[0] - plain.vertices[0]).abs().max() > 0.01


class Judge:
    """Sees each joint where the predictor puts it, moved to the right by a part of the torso."""

    def __init__(self, predictor: Predictor, error: float):
        self.predictor, self.error = predictor, error
        self.detector = BlazePosePersonDetector.load()

    def look(self, image, detection):
        window = CropWindow.for_box(detection.box)
        found = self.predictor.look(image, [window]).people.estimate.keypoints_2d[0]
        places = window.to_photo(found[SEEN_KEYPOINTS].double().numpy())
        places[:, 0] += self.error * real_photos.torso_length(places)
        return Landmarks(places, np.array([1.0] * 11 + [0.0]), 1.0)


class Seer:
    """A detector of people that sees what it was told."""

    def __init__(self, *people: Detection):
        self.people = people

    def detect(self, image, score_threshold=0.5, max_people=None):
        return list(self.people)


def test_a_judges_people_get_the_predictors_own_boxes(model):
    squares = [Detection((float(x), 0.0, 100.0, 100.0), 0.9) for x in (0, 200, 400)]
    second = Detection((230.0, 5.0, 40.0, 90.0), 0.8)
    elsewhere = Detection((700.0, 5.0, 40.0, 90.0), 0.8)
    predictor = Predictor(model, Seer(second, elsewhere))
    boxes, others = real_photos.boxes_of(predictor, np.zeros((9, 9, 3), np.uint8), squares)
    assert boxes == [squares[0].box, second.box, squares[2].box]
    assert others == [elsewhere.box]


def test_agreement_on_photos_counts_joints_that_the_judge_sees(model):
    photo = ("im01.png", read_image(SAMPLES / "im01.png"))
    predictor = Predictor(model, Seer())  # then the judge's squares are taken
    for error, expected in ((0.1, 1.0), (0.3, 0.0)):
        (found,), drawn = real_photos.compare(predictor, Judge(predictor, error), photo)
        assert found.shown.sum() == 11 and found.pck == expected
        assert np.abs(found.errors - error).max() < 1e-3
    assert drawn.shape == photo[1].shape and (drawn == [255, 0, 0]).all(axis=-1).any()
    blank = ("grey", np.full((100, 100, 3), 128, np.uint8))
    assert real_photos.compare(predictor, Judge(predictor, 0.0), blank)[0] == []


# Measured by hand in samples/im02.jpg, the man with his arms spread; left is his left.
MAN = {
    "L_Shoulder": (486, 78), "R_Shoulder": (431, 77), "L_Elbow": (524, 94), "R_Elbow": (396, 98),
    "L_Wrist": (566, 97), "R_Wrist": (348, 103), "L_Hip": (474, 160), "R_Hip": (442, 160),
    "L_Knee": (479, 230), "R_Knee": (435, 231), "L_Ankle": (483, 296), "R_Ankle": (430, 291),
}  # fmt: skip


def test_released_weights_find_arms_and_legs_in_a_photo():
    photo, window = (
        read_image(SAMPLES / "im02.jpg"),
        CropWindow.for_box((315.0, 28.0, 270.0, 290.0)),
    )
    network = Predictor.load(device="cpu", mirror=False, fit=False)
    estimate = network.look(photo, [window]).people.estimate
    found = window.to_photo(estimate.keypoints_2d[0].double().numpy())
    errors = [
        np.linalg.norm(found[open_weights.KEYPOINT_NAMES.index(name)] - place)
        for name, place in MAN.items()
    ]
    torso = 90
    assert np.mean(errors) < 0.15 * torso, dict(zip(MAN, np.round(errors), strict=True))
    assert max(errors) < 0.3 * torso, dict(zip(MAN, np.round(errors), strict=True))


def test_the_table_names_every_number_and_a_missing_file_is_one_sentence(capsys, monkeypatch):
    harness.print_markdown({"weights": "x", "mpjpe": 71.25, "video_pck": 0.5})
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| weights | x |",
        "| mpjpe | 71.25 |",
        "| video_pck | 0.50 |",
    ]
    monkeypatch.setattr(harness, "released_weights", lambda: None)
    assert open_weights.main([]) == 2
    assert capsys.readouterr().err.count("--checkpoint") == 1
