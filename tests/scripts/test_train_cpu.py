import numpy as np
import pytest
import torch

from scripts import train_cpu as script
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.models.smpler import PRESETS
from smpler.models.weights.checkpoint import read_checkpoint
from smpler.utils.geometry import axis_angle_to_rotmat
from tests.support.standin_wardrobe import wardrobe

NUM = 16


@pytest.fixture(scope="module")
def patched():
    """Small chunks of a small wardrobe; the backbone at its initialisation."""
    with pytest.MonkeyPatch.context() as patch:
        stream, clothes = script.SyntheticPeople, wardrobe(open_body())
        patch.setattr(script, "CHUNK", NUM)
        patch.setattr(script, "SyntheticPeople", lambda *a, **k: stream(*a, clothes, **k))
        patch.setattr(script, "load_backbone", lambda *_: None)
        patch.setattr(script, "require", lambda path: path)
        yield patch


@pytest.fixture(scope="module")
def folder(patched, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chunks")
    for split in script.SPLITS:
        assert run("prepare", folder, "--split", split, "--last", 1) == 0
    return folder


def run(*arguments) -> int:
    return script.main([str(argument) for argument in arguments])


def train(folder, out, *arguments) -> dict:
    common = ("--batch_size", 4, "--report_every", 1, "--steps", 3, "--out", out)
    assert run("train", folder, *common, *arguments) == 0
    return torch.load(out, weights_only=True)


@pytest.mark.slow
def test_mirrored_maps_and_labels_are_those_of_the_mirrored_crop(folder):
    model = script.initial_model("smpler-blaze-backbone").eval()
    index, plain, flipped = np.arange(NUM), np.zeros(NUM, bool), np.ones(NUM, bool)
    kept, fresh = script.Chunks(folder, "val"), script.Chunks(folder, "val")
    encoder = script.Encoder(model)
    kept.encode(encoder, "both")
    assert len(kept) == NUM
    with torch.no_grad():
        for flip in (plain, flipped):
            maps = fresh.features(model, index, flip)
            assert [x.shape[-1] for x in maps] == [32, 16, 8]
            (coarsest,) = kept.features(model, index, flip)
            error = (coarsest - maps[-1]).abs().max() / maps[-1].abs().max()
            assert error < 2e-3, error
        crops = np.load(folder / "val_0000.images.npy")
        mirrored = model.backbone(torch.from_numpy(crops[..., ::-1].copy()) / 255)
    for ours, expected in zip(fresh.features(model, index, flipped), mirrored, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4)
    labels = kept.targets(index, flipped)
    body = SMPL(open_body())
    posed = body(axis_angle_to_rotmat(labels["pose"].unflatten(1, (24, 3))), labels["betas"])
    keypoints = posed.keypoints_3d - posed.pelvis[:, None]
    error = (keypoints - labels["keypoints_3d"][..., :3]).norm(dim=-1).max().item()
    assert error < 0.01, f"{error} m: the mirrored labels are not those of the mirrored person"
    other = kept.targets(index, plain)
    distance = (other["keypoints_3d"] - labels["keypoints_3d"]).norm(dim=-1).max().item()
    assert distance > 0.1, "mirroring changed nothing"


@pytest.mark.slow
def test_of_alternate_sides_every_second_crop_is_mirrored(folder):
    model = script.initial_model("smpler-blaze-backbone").eval()
    encoder, index = script.Encoder(model), np.arange(NUM)
    both, once = script.Chunks(folder, "val"), script.Chunks(folder, "val")
    both.encode(encoder, "both")
    once.encode(encoder, "alternate")
    flip = once.draw_sides(index, np.random.default_rng(0))
    assert flip.tolist() == [False, True] * (NUM // 2)
    never = script.Chunks(folder, "val")
    never.encode(encoder, "plain")
    assert not never.draw_sides(index, np.random.default_rng(0)).any()
    with torch.no_grad():
        (expected,), (found,) = (chunks.features(model, index, flip) for chunks in (both, once))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        model.backbone.stage16[0][0].weight.mul_(1.1)
    assert script.Encoder(model).name != encoder.name, "another encoder's maps would be taken"


@pytest.mark.slow
def test_the_last_stage_of_the_encoder_can_be_trained_too(folder, tmp_path):
    torch.manual_seed(0)
    trained = train(folder, tmp_path / "out.pt", "--kept", "stage8", "--sides", "alternate")
    trained = trained["training"]["trained"]
    torch.manual_seed(0)  # as the script does: the same initialisation
    start = script.initial_model("smpler-blaze-backbone").state_dict()
    moved = {name for name, x in start.items() if (trained[name] != x).any()}
    assert any(name.startswith("backbone.stage16.") for name in moved)
    assert not any(name.startswith(("backbone.stage4.", "backbone.stage8.")) for name in moved)


@pytest.mark.slow
def test_maps_kept_earlier_lead_to_the_same_features(folder):
    model = script.initial_model("smpler-blaze-backbone").eval()
    index, plain = np.arange(NUM), np.zeros(NUM, bool)
    found = []
    for kept in ("stage8", "stage16"):
        chunks = script.Chunks(folder, "val")
        chunks.encode(script.Encoder(model, kept), "plain")
        with torch.no_grad():
            found += chunks.features(model, index, plain)
    error = (found[0] - found[1]).abs().max() / found[1].abs().max()
    assert error < 2e-3, error


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0, 0.2])
def test_a_cut_off_training_goes_on_where_it_was(folder, patched, tmp_path, dropout, capsys):
    dropout = ("--dropout", dropout)
    whole = train(folder, tmp_path / "whole.pt", *dropout)
    save = script.Run.save

    def cut_off(self, step, *rest):
        save(self, step, *rest)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError):
        patch.setattr(script.Run, "save", cut_off)
        train(folder, tmp_path / "parts.pt", *dropout)
    assert "--resume" in capsys.readouterr().err
    parts = train(folder, tmp_path / "parts.pt", "--resume", *dropout)
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name
    assert [entry["step"] for entry in parts["training"]["curve"]] == [1, 2, 3]
    assert parts["training"]["curve"][-1] == whole["training"]["curve"][-1]
    arguments = ("--out", tmp_path / "parts.pt", "--resume", "--steps", 3, "--batch_size", 4)
    assert run("train", folder, *arguments, "--seed", 1) == 2
    assert "--seed 0, but now it is 1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_encoder_stays_and_the_result_starts_the_model_with_blocks(folder, tmp_path):
    first = train(folder, tmp_path / "first.pt")["training"]
    second = ("--preset", "smpler-blaze", "--load_checkpoint", tmp_path / "first.pt")
    second = train(folder, tmp_path / "second.pt", *second, "--vertices")["training"]
    # a weight that moved is not yet where the average is
    average = read_checkpoint(tmp_path / "first.pt").state
    moved = {name for name, x in first["trained"].items() if (x != average[name]).any()}
    encoder = tuple(f"backbone.stage{side}." for side in (4, 8, 16))
    assert any(name.startswith("backbone.stage32.") for name in moved)
    assert any(name.startswith("regressor.") for name in moved)
    assert not any(name.startswith(encoder) for name in moved), moved
    # with blocks, the whole backbone stays
    trained = second["trained"]
    moved = {name for name, x in average.items() if (trained[name] != x).any()}
    assert moved and all(name.startswith("regressor.") for name in moved), moved
    assert any(name.startswith("blocks.0.") for name in trained)
    assert first["curve"][0]["crops"] == NUM
    checkpoint = read_checkpoint(tmp_path / "second.pt")
    assert checkpoint.config == PRESETS["smpler-blaze"]
    assert checkpoint.body_sha256 == open_body().sha256


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--preset", "smpler-blaze", "--kept", "stage8"), "--sides and --kept are for"),
        (("--report_every", 0), "'0' is not a whole number from 1"),
        (("--ema", 1), "'1' is not between 0 and 1"),
    ],
)
def test_flags_without_sense_are_one_sentence(flags, message, tmp_path, capsys):
    try:
        code = run("train", tmp_path, "--out", tmp_path / "out.pt", *flags)
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and message in capsys.readouterr().err


def test_without_chunks_it_says_what_to_do(tmp_path, capsys):
    assert run("train", tmp_path, "--out", tmp_path / "out.pt") == 2
    assert "prepare" in capsys.readouterr().err
