import sys
from dataclasses import replace

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import torch

from smpler.models import predictor as predictor_module
from smpler.models.body import open_body
from smpler.models.detectors import Detection
from smpler.models.detectors.shipped import Detectors
from smpler.models.inference.backends import with_backend
from smpler.models.predictor import MAX_PEOPLE, Predictor
from smpler.utils.image import CropWindow, crop, read_image
from smpler.utils.joints import KEYPOINT_NAMES
from smpler.utils.paths import SAMPLES
from tests.support.samples import TORSO, WOMAN
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


def test_a_longer_lens_puts_the_person_farther_away_at_the_same_place_in_the_photo(predictor):
    near, far = (
        predictor(SAMPLES / "im01.png", boxes=[BOX], focal_length=f)[0] for f in (500.0, 1000.0)
    )
    assert far.translation[2] == pytest.approx(2 * near.translation[2], rel=0.1)
    assert np.linalg.norm(far.joints_2d - near.joints_2d, axis=1).max() < 25
    assert far.focal_length == 1000


def test_everybody_is_taken_by_default_and_of_fewer_the_most_prominent(predictor):
    everybody = predictor(SAMPLES / "im02.jpg")
    assert [person.person for person in everybody] == [0, 1]
    (alone,) = predictor(SAMPLES / "im02.jpg", max_people=1)
    assert np.array_equal(alone.box, everybody[0].box)
    # in a group, whom one is not asked for is made black all the same
    assert np.abs(alone.vertices - everybody[0].vertices).max() < 0.03


class Seer:
    """A detector that sees what it was told."""

    def __init__(self, *people: tuple[float, float, float, float, float]):
        self.people = [Detection(person[:4], person[4]) for person in people]

    def detect(self, image, score_threshold=0.5, max_people=None):
        return self.people


def test_the_most_prominent_comes_before_the_best_score(predictor):
    small, large = (50.0, 50.0, 60.0, 150.0, 0.9), (160.0, 114.0, 261.0, 428.0, 0.6)
    seer = Predictor(predictor.model, Seer(small, large))
    found = seer.find_people(read_image(SAMPLES / "im01.png"))
    assert [person.score for person in found] == [0.6, 0.9]


def test_at_most_twenty_people_are_taken(monkeypatch):
    crowd = [(float(20 * x), 10.0, 18.0, 80.0, 0.9) for x in range(25)]
    model = tiny_model(monkeypatch)
    photo = np.zeros((120, 520, 3), np.uint8)
    assert len(Predictor(model, Seer(*crowd))(photo)) == MAX_PEOPLE == 20
    assert len(Predictor(model, Seer(*crowd))(photo, max_people=23)) == 23


def test_nobody_is_an_empty_list_and_a_warning(predictor):
    with pytest.warns(UserWarning, match="empty.png: nobody was found; --bbox"):
        assert predictor(np.full((200, 300, 3), 255, np.uint8), name="empty.png") == []


def test_people_are_searched_by_one_network_and_looked_at_by_another(predictor, monkeypatch):
    asked = []

    def spied(name, method):
        def asks(self, **arguments):
            asked.append((name, *arguments.values()))
            return method(self, **arguments)

        return asks

    for name in ("landmarks", "for_search"):
        monkeypatch.setattr(Detectors, name, spied(name, getattr(Detectors, name)))
    seer = Predictor(predictor.model, Seer())
    with pytest.warns(UserWarning, match="nobody was found"):
        seer.find_people(np.full((200, 300, 3), 255, np.uint8))
    assert asked == [("for_search",)]
    asked.clear()
    for fit in (False, True):
        seer.fit = fit
        seer(SAMPLES / "im01.png", [BOX])
        assert set(asked) == {("landmarks", not fit)}
        asked.clear()


def test_a_crop_that_plainly_shows_a_person_is_taken_whole(predictor):
    crop = read_image(SAMPLES / "im01.png")[90:570, 110:460].copy()
    (person,) = Predictor(predictor.model, Seer())(crop)
    assert person.box.tolist() == [0, 0, 350, 480] and person.box_source == "photo"
    assert 0.9 < person.box_score <= 1


def test_2d_is_where_the_fit_put_the_joints_and_what_the_documented_formula_says(predictor):
    image = read_image(SAMPLES / "im03.jpg")
    (person,) = predictor(image)
    window = CropWindow(*person.crop.tolist())
    estimate = predictor.look(image, [window], [tuple(person.box.tolist())]).people.estimate
    for name, fitted in (("joints", estimate.joints_2d), ("keypoints", estimate.keypoints_2d)):
        placed = getattr(person, f"{name}_3d") + person.translation
        formula = person.focal_length * placed[:, :2] / placed[:, 2:] + person.principal_point
        for found in (formula, window.to_photo(fitted[0].numpy())):
            error = np.abs(found - getattr(person, f"{name}_2d")).max()
            assert error < 0.05, (name, error)


def test_a_mixture_of_two_people_is_estimated_once_more_without_the_other(predictor, monkeypatch):
    """The large person's landmarks are those of the small one before: black at the second look."""
    image = read_image(SAMPLES / "im01.png")
    boxes = [(160.0, 114.0, 261.0, 428.0), (290.0, 300.0, 130.0, 230.0)]
    windows = [CropWindow.for_box(box) for box in boxes]
    observed = predictor_module.observe
    monkeypatch.setattr(
        predictor_module, "observe", lambda *a: replace(observed(*a), hidden={0: 1})
    )
    hidden = predictor.look(image, windows, boxes).people.estimate
    monkeypatch.setattr(predictor_module, "observe", lambda *a: replace(observed(*a), hidden={}))
    plain = predictor.look(image, windows, boxes).people.estimate
    moved = (hidden.rotmat - plain.rotmat).abs().amax(dim=(1, 2, 3))
    assert moved[0] > 0.05 and moved[1] < 0.02, moved
    network = Predictor(predictor.model)  # its answer stays as it is
    monkeypatch.setattr(
        predictor_module, "observe", lambda *a: replace(observed(*a), hidden={0: 1})
    )
    alone = network.look(image, windows[:1], boxes[:1]).people.estimate
    together = network.look(image, windows, boxes).people.estimate
    assert (alone.rotmat[0] - together.rotmat[0]).abs().max() < 1e-4


def test_the_focal_length_is_the_given_one_then_exifs_then_the_diagonal(predictor, tmp_path):
    image = PIL.Image.open(SAMPLES / "im01.png").convert("RGB")
    diagonal = np.hypot(*image.size)
    exif = PIL.Image.Exif()
    exif.get_ifd(PIL.ExifTags.IFD.Exif)[PIL.ExifTags.Base.FocalLengthIn35mmFilm] = 85
    image.save(tmp_path / "exif.jpg", exif=exif)
    image.save(tmp_path / "bare.jpg")
    by_lens = 85 / np.hypot(36, 24) * diagonal
    for name, given, expected in (
        ("exif.jpg", 900.0, (900.0, "given")),
        ("exif.jpg", None, (by_lens, "exif")),
        ("bare.jpg", None, (diagonal, "diagonal")),
    ):
        (person,) = predictor(tmp_path / name, [BOX], focal_length=given)
        assert person.focal_length == pytest.approx(expected[0], rel=1e-6)
        assert person.focal_length_source == expected[1]
        seen = person.joints_2d.mean(axis=0)
        assert np.abs(seen - [290, 330]).max() < 60, seen  # wherever the camera is


def test_people_say_how_well_they_are_seen(predictor):
    (person,) = predictor(SAMPLES / "im01.png")
    assert person.fit == "applied" and 0 < person.fit_residual < 20
    assert 0.4 < person.quality < 1
    (astronaut,) = predictor(SAMPLES / "im05.jpg")  # down to her hips
    seen = dict(zip(astronaut.joint_names, astronaut.joints_confidence, strict=True))
    assert min(seen["Head"], seen["R_Shoulder"]) > 0.9 and seen["L_Ankle"] == seen["R_Foot"] == 0
    assert astronaut.quality < person.quality
    (nobody,) = predictor(np.full((300, 300, 3), 255, np.uint8), [(50.0, 50.0, 100.0, 200.0)])
    assert nobody.fit == "no landmarks" and nobody.fit_residual is None
    assert nobody.quality < 0.2 and not nobody.joints_confidence.any()


def test_without_the_fit_the_network_stays_as_it_is_but_is_judged_all_the_same(predictor):
    plain = Predictor(predictor.model)
    (person,) = plain(SAMPLES / "im01.png", [BOX])
    (fitted,) = Predictor(predictor.model, fit=True)(SAMPLES / "im01.png", [BOX])
    assert person.fit == "off" and person.quality == pytest.approx(fitted.quality, abs=0.15)
    assert person.fit_residual > fitted.fit_residual > 0
    image, window = read_image(SAMPLES / "im01.png"), CropWindow.for_box(BOX)
    images = torch.from_numpy(crop(image, window)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        estimate = predictor.model(images)[-1]
    for name in ("rotmat", "cam", "betas"):
        error = np.abs(getattr(person, name) - getattr(estimate, name)[0].numpy()).max()
        assert error < 1e-5, (name, error)


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
        (BLACK, {"focal_length": 1e300}, r"focal_length is 1e\+300; of the photo it is a number"),
        (BLACK, {"focal_length": 1e-9}, "between 3 and 636"),
        (BLACK, {"boxes": np.array([1.0, 2.0, 3.0, 4.0])}, "boxes is one box; give a list"),
        (BLACK, {"boxes": [(1.0, 1.0, 7.0, 7.0)] * 2}, "1,1,7,7 and 1,1,7,7 are nearly the same"),
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
    expected, found = (Predictor(m).look(photo, windows).people.estimate for m in (model, fused))
    error = (expected.vertices - found.vertices).abs().max().item()
    assert 0 < error < 1e-4, error


def test_a_backend_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="backend onnxruntime: onnxruntime is missing: pip"):
        with_backend(tiny_model(monkeypatch), "onnxruntime")


@pytest.mark.parametrize("inference", [True, False])
def test_the_released_model_and_the_fit_meet_a_walks_stride(predictor, inference):
    """The network alone makes the stride half as wide."""
    photo, window = read_image(SAMPLES / "im01.png"), CropWindow.for_box(BOX)
    errors = {}
    for fit in (False, True):
        with torch.inference_mode(inference):
            estimate = Predictor(predictor.model, mirror=True, fit=fit)
            estimate = estimate.look(photo, [window]).people.estimate
        found = window.to_photo(estimate.keypoints_2d[0].double().numpy())
        errors[fit] = {
            name: np.linalg.norm(found[KEYPOINT_NAMES.index(name)] - place) / TORSO
            for name, place in WOMAN.items()
        }
    assert np.mean(list(errors[True].values())) < 0.12, errors[True]
    assert max(errors[True].values()) < 0.25, errors[True]
    assert np.mean(list(errors[False].values())) > 0.15, errors[False]


def test_the_model_that_it_holds_is_in_eval_mode_and_where_it_was_asked_for(predictor):
    assert not predictor.model.training and predictor.device == torch.device("cpu")
    assert predictor.weights == "smpler_open_blaze.safetensors"


def test_on_another_body_the_shape_is_left_at_zero_and_said():
    shipped = open_body()
    other = replace(shipped, name="other", v_template=1.1 * shipped.v_template)
    with pytest.warns(UserWarning, match="the shape of 'other' is left at zero"):
        predictor = Predictor.load(body=other, device="cpu")
    (person,) = predictor(SAMPLES / "im01.png", boxes=[BOX])
    assert person.fit == "applied" and not person.betas.any()


def test_without_the_lifter_the_fit_starts_from_the_network(predictor):
    plain = Predictor(predictor.model, mirror=True, fit=True, lift=False)
    (without,) = plain(SAMPLES / "im01.png", boxes=[BOX])
    (person,) = predictor(SAMPLES / "im01.png", boxes=[BOX])
    assert without.joints_std is None and person.joints_std.shape == (24,)
    assert 0.01 < person.joints_std[1:].mean() < 0.3
    assert np.abs(person.joints_3d - without.joints_3d).max() > 0.02
