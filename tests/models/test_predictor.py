import sys

import numpy as np
import pytest
import torch

from smpler.models.predictor import Predictor, with_backend
from smpler.utils.image import CropWindow, read_image
from smpler.utils.paths import SAMPLES
from tests.support.tiny_model import tiny_model

BLACK = np.zeros((9, 9, 3), np.uint8)
BOX = (160.0, 110.0, 250.0, 430.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(device="cpu")


def test_a_path_and_its_pixels_give_the_same_people(predictor):
    by_path = predictor(SAMPLES / "im01.png")
    by_pixels = predictor(read_image(SAMPLES / "im01.png"), name="im01.png")
    assert len(by_path) == len(by_pixels) == 1
    for name, value in by_path[0].to_dict().items():
        assert np.array_equal(value, getattr(by_pixels[0], name)), name
    assert by_path[0].box_source == "detector" and by_path[0].image == "im01.png"


def test_boxes_decide_who_is_estimated(predictor):
    people = predictor(str(SAMPLES / "im01.png"), boxes=[BOX, np.array([100, 50, 200, 400])])
    assert [person.person for person in people] == [0, 1]
    assert [person.box_source for person in people] == ["given", "given"]
    assert people[1].crop.tolist() == [-40, 10, 480, 480]


def test_the_focal_length_places_the_person_but_does_not_change_them(predictor):
    near, far = (
        predictor(SAMPLES / "im01.png", boxes=[BOX], focal_length=f)[0] for f in (500.0, 1000.0)
    )
    assert far.translation[2] == pytest.approx(2 * near.translation[2])
    assert np.array_equal(near.vertices, far.vertices) and far.focal_length == 1000


def test_at_most_so_many_people_are_taken(predictor):
    assert len(predictor(SAMPLES / "im02.jpg")) == 1
    assert len(predictor(SAMPLES / "im02.jpg", max_people=4)) == 2


def test_a_person_saves_what_the_demo_writes(predictor, tmp_path):
    photo = read_image(SAMPLES / "im01.png")
    (person,) = predictor(photo, boxes=[BOX])
    person.save(tmp_path / "new", "her", photo)
    written = {path.name for path in (tmp_path / "new").iterdir()}
    suffixes = (".npz", ".json", ".obj", ".glb", "_side.png", "_overlay.png")
    assert written == {f"her_0{suffix}" for suffix in suffixes}
    person.save(tmp_path / "bare", "her")
    assert "her_0_overlay.png" not in {path.name for path in (tmp_path / "bare").iterdir()}


@pytest.mark.parametrize(
    ("photo", "arguments", "message"),
    [
        ("nowhere.jpg", {}, "nowhere.jpg is missing"),
        (
            np.zeros((9, 9, 3)),
            {},
            r"The photo is float64 \(9, 9, 3\); give a path, or RGB as uint8",
        ),
        (np.zeros((9, 9), np.uint8), {}, r"The photo is uint8 \(9, 9\)"),
        (np.zeros((9, 9, 4), np.uint8), {}, r"uint8 \(9, 9, 4\)"),
        (BLACK, {"boxes": []}, "boxes is empty"),
        (BLACK, {"boxes": [(1.0, 2.0, 3.0)]}, "is not x, y, width, height"),
        (BLACK, {"boxes": [(1.0, 2.0, 0.0, 3.0)]}, "no positive width"),
        (
            np.zeros((9, 9, 3), np.uint8),
            {"boxes": [(50.0, 2.0, 9.0, 3.0)]},
            "does not fit the photo",
        ),
        (BLACK, {"max_people": 0}, "max_people is 0"),
        (BLACK, {"focal_length": -1.0}, "focal_length is -1"),
    ],
)
def test_mistakes_are_one_sentence(predictor, photo, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predictor(photo, **arguments)


def test_unknown_backends_and_files_are_named():
    with pytest.raises(ValueError, match="backend is 'quick'; choose one of eager"):
        Predictor.load(backend="quick")
    with pytest.raises(FileNotFoundError, match="nowhere.pt is missing"):
        Predictor.load("nowhere.pt")


def test_backends_give_the_same_people(monkeypatch):
    model = tiny_model(monkeypatch)
    photo, windows = read_image(SAMPLES / "im05.jpg"), [CropWindow(0, 0, 90, 90)]
    assert with_backend(model, "eager") is model
    fused = with_backend(model, "fused")
    expected, found = (Predictor(m).estimate(photo, windows) for m in (model, fused))
    error = (expected.vertices - found.vertices).abs().max().item()
    assert 0 < error < 1e-4, error


def test_a_backend_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="backend onnxruntime: onnxruntime is missing: pip"):
        with_backend(tiny_model(monkeypatch), "onnxruntime")


def test_the_model_that_it_holds_is_in_eval_mode_and_where_it_was_asked_for(predictor):
    assert not predictor.model.training and predictor.device == torch.device("cpu")
    assert predictor.weights == "smpler_open_blaze.safetensors"
