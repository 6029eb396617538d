import hashlib
import warnings

import numpy as np
import pytest
import torch

from scripts import release_weights
from smpler.models.body import open_body
from smpler.models.predictor import Predictor
from smpler.models.smpler import PRESETS
from smpler.models.weights import checkpoint
from smpler.models.weights.checkpoint import load_model, released_weights
from smpler.utils.image import CropWindow, crop, read_image
from smpler.utils.paths import ROOT, SAMPLES
from tests.training.disk import full_disk

PRESET = "smpler-blaze-backbone"
RELEASED_NAME = "smpler_open_blaze.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as the trainer writes it, its release, and the model."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    body = open_body()
    model = load_model(PRESET)  # trained weights, as random ones give all people one pose
    with torch.no_grad():
        for weight in model.parameters():  # moved off the int8 steps that they were rounded to
            weight *= 1 + 0.002 * torch.randn_like(weight)
    content = {
        "model": model.state_dict(),
        "config": model.config.to_dict(),
        "body": {"name": body.name, "sha256": body.sha256},
        "protocol": {"name": "open"},
        "global_iter": 7,
        "optimizer": {"state": torch.zeros(1)},
        "metric": 61.5,
    }
    torch.save(content, folder / "best.pt")
    assert (
        release_weights.main([str(folder / "best.pt"), "--out", f"{folder / RELEASED_NAME}"]) == 0
    )
    return folder


def estimates(path):
    photos = [read_image(SAMPLES / name) for name in ("im01.png", "im05.jpg")]
    whole = [(0.0, 0.0, float(x.shape[1]), float(x.shape[0])) for x in photos]
    crops = [crop(x, CropWindow.for_box(box)) for x, box in zip(photos, whole, strict=True)]
    model = load_model(checkpoint=path)
    with torch.no_grad():
        return model, model(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))[-1].vertices


def test_int8_poses_the_body_as_float_does(folder):
    _, exact = estimates(folder / "best.pt")
    model, rounded = estimates(folder / RELEASED_NAME)
    assert model.config == PRESETS[PRESET] and model.smpl.body.name == "open"
    error = (exact - rounded).norm(dim=-1).mean().item()
    difference = (exact[0] - exact[1]).norm(dim=-1).mean().item()
    assert 0 < error < 0.15 * difference, f"{error} m, while two people differ by {difference} m"


def test_a_release_is_four_times_smaller_and_says_how_it_was_trained(folder):
    state = torch.load(folder / "best.pt", weights_only=True)["model"]
    num_bytes = sum(value.numel() * value.element_size() for value in state.values())
    size = (folder / RELEASED_NAME).stat().st_size
    assert size < num_bytes / 3.6 and size < 7e6, (size, num_bytes)
    header = release_weights.read_quantized(folder / RELEASED_NAME)
    assert header["metric"] == 61.5 and header["global_iter"] == 7
    assert header["body"]["sha256"] == open_body().sha256 and "optimizer" not in header


def test_without_a_checkpoint_the_released_weights_are_taken(folder, monkeypatch, tmp_path):
    files = {"smpler": tmp_path / "no.safetensors", PRESET: folder / RELEASED_NAME}
    monkeypatch.setattr(checkpoint, "RELEASED_FILES", files)
    assert released_weights() == released_weights(PRESET) == folder / RELEASED_NAME
    assert released_weights("smpler") is None and released_weights("smpler-l") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model()
    expected = load_model(checkpoint=folder / RELEASED_NAME).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    with pytest.raises(ValueError, match="no open weights of smpler-lite-backbone"):
        load_model("smpler-lite-backbone", body=open_body())


def test_results_name_the_released_weights(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "RELEASED_FILES", {PRESET: folder / RELEASED_NAME})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = Predictor.load(device="cpu")
    assert predictor.mirror and predictor.fit, "as with open weights"
    (person,) = predictor(SAMPLES / "im01.png", boxes=[(100.0, 50.0, 200.0, 400.0)])
    content = (folder / RELEASED_NAME).read_bytes()
    assert person.weights == RELEASED_NAME
    assert person.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_another_body_than_that_of_the_training_is_announced(folder, tiny_body):
    with pytest.warns(UserWarning, match="trained on another body than 'tiny'"):
        load_model(checkpoint=folder / RELEASED_NAME, body=tiny_body)


def test_what_cannot_be_released_is_one_sentence(folder, tmp_path, capsys):
    state = torch.load(folder / "best.pt", weights_only=True)["model"]
    torch.save(state, tmp_path / "bare.pt")
    assert release_weights.main([str(tmp_path / "bare.pt")]) == 2
    assert "bare.pt does not say on which body" in capsys.readouterr().err
    assert release_weights.main([str(tmp_path / "nowhere.pt")]) == 2
    assert "nowhere.pt is missing" in capsys.readouterr().err
    config = PRESETS["smpler-lite-backbone"]
    with pytest.raises(ValueError, match="none of smpler-blaze, smpler-blaze-backbone, smpler"):
        release_weights.place_of(config, "x.pt")


def test_a_full_disk_leaves_the_older_file_and_names_it(folder, tmp_path, capsys):
    out = tmp_path / "older.safetensors"
    out.write_bytes(b"older")
    with full_disk(1_000_000):
        code = release_weights.main([str(folder / "best.pt"), "--out", str(out)])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and f"{out} could not be written" in error, error
    assert out.read_bytes() == b"older" and list(tmp_path.iterdir()) == [out]


def test_a_configuration_of_another_version_is_one_sentence(tmp_path):
    torch.save({"model": {"x": torch.zeros(1)}, "config": {"width": 3}}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match="old.pt has a configuration of another version.*width"):
        load_model(checkpoint=tmp_path / "old.pt")


def test_the_backbone_of_weights_without_configuration_is_recognised(folder):
    state = torch.load(folder / "best.pt", weights_only=True)["model"]
    assert load_model(checkpoint=state).config == PRESETS[PRESET]


def test_what_the_recipes_train_has_its_place():
    trained = ("smpler", "smpler-blaze", "smpler-blaze-backbone")
    places = [release_weights.place_of(PRESETS[preset], preset) for preset in trained]
    assert len(set(places)) == len(trained)
    recipes = (ROOT / "scripts" / "train_open.sh").read_text()
    assert all(f"pretrained/{place.name}" in recipes for place in places)
