import numpy as np
import pytest
import torch

from models.body import open_body
from models.pretrained import read_checkpoint
from models.smpl import SMPL
from models.smpler import PRESETS
from scripts import train_lite_cpu as script
from tests.standin_wardrobe import wardrobe
from utils.geometry import axis_angle_to_rotmat

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
        torch.manual_seed(0)
        run("prepare", folder, "--split", split, "--last", 1)
    return folder


def run(*arguments) -> None:
    script.main([str(argument) for argument in arguments])


def train(folder, out, *arguments) -> dict:
    common = ("--batch_size", 4, "--report_every", 1, "--steps", 3, "--out", out)
    run("train", folder, "--preset", "smpler-lite-backbone", *common, *arguments)
    return torch.load(out, weights_only=True)


@pytest.mark.slow
def test_mirrored_maps_and_labels_are_those_of_the_mirrored_crop(folder):
    data = script.Chunks(folder, "val")
    assert len(data) == NUM
    crops = np.load(folder / "val_0000.npz")["image"]
    torch.manual_seed(0)
    mirrored = script.finest_maps(
        script.initial_model("smpler-lite-backbone"), np.ascontiguousarray(crops[..., ::-1])
    )
    index = np.arange(NUM)
    maps, labels = data.batch(index, np.ones(NUM, bool))
    error = np.abs(maps.numpy() - mirrored[:, 0]).max() / np.abs(mirrored).max()
    assert error < 2e-3, error
    body = SMPL(open_body())
    posed = body(axis_angle_to_rotmat(labels["pose"].unflatten(1, (24, 3))), labels["betas"])
    keypoints = posed.keypoints_3d - posed.pelvis[:, None]
    error = (keypoints - labels["keypoints_3d"][..., :3]).norm(dim=-1).max().item()
    assert error < 0.01, f"{error} m: the mirrored labels are not those of the mirrored person"
    _, plain = data.batch(index, np.zeros(NUM, bool))
    distance = (plain["keypoints_3d"] - labels["keypoints_3d"]).norm(dim=-1).max().item()
    assert distance > 0.1, "mirroring changed nothing"


@pytest.mark.slow
def test_a_cut_off_training_goes_on_where_it_was(folder, patched, tmp_path):
    whole = train(folder, tmp_path / "whole.pt")
    save = script.Run.save

    def cut_off(self, step, *rest):
        save(self, step, *rest)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script.Run, "save", cut_off)
        train(folder, tmp_path / "parts.pt")
    parts = train(folder, tmp_path / "parts.pt", "--resume")
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name
    assert [entry["step"] for entry in parts["training"]["curve"]] == [1, 2, 3]
    assert parts["training"]["curve"][-1] == whole["training"]["curve"][-1]


@pytest.mark.slow
def test_kept_stages_stay_and_the_result_starts_the_model_with_blocks(folder, tmp_path):
    torch.manual_seed(0)
    before = script.initial_model("smpler-lite-backbone").state_dict()
    after = train(folder, tmp_path / "first.pt")["training"]["trained"]
    kept = ("backbone.stem.", "backbone.stages.0.", "backbone.stages.1.")
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and not any(name.startswith(kept) for name in changed), changed
    assert not any("running" in name for name in changed), "statistics must stay ImageNet's"
    second = ("--preset", "smpler-lite", "--load_checkpoint", tmp_path / "first.pt")
    train(folder, tmp_path / "second.pt", *second, "--steps", 1)
    checkpoint = read_checkpoint(tmp_path / "second.pt")
    assert checkpoint.config == PRESETS["smpler-lite"]
    assert checkpoint.body_sha256 == open_body().sha256


def test_without_chunks_it_says_what_to_do(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="run `prepare` first"):
        train(tmp_path, tmp_path / "out.pt")
