"""Which body and keypoint regressor a data mode takes; stand-ins in place of licensed files."""

import hashlib
import json

import numpy as np
import pytest
import torch

import main
from scripts.make_toy_data import write_all
from smpler.models import body
from smpler.models.smpler import PRESETS
from smpler.models.weights import protocol_body
from smpler.models.weights.checkpoint import Checkpoint
from smpler.models.weights.protocol_body import protocol_body as choose
from tests.support import standin

FILES = {"h36m": "J_regressor_h36m_correct.npy", "3dpw": "J_regressor_3dpw.npy"}


@pytest.fixture
def meta_data(tmp_path, monkeypatch):
    """An empty meta_data/, apart from the open body."""
    folder = tmp_path / "meta_data"
    folder.mkdir()
    monkeypatch.setattr(protocol_body, "USER_META_DATA", folder)
    monkeypatch.setattr(body, "SMPL_FILES", (folder / "SMPL_NEUTRAL.npz",))
    monkeypatch.setattr(body, "H36M_REGRESSOR", folder / FILES["h36m"])
    genders = {name: (folder / f"SMPL_{name.upper()}.npz",) * 2 for name in ("male", "female")}
    monkeypatch.setattr(body, "GENDERED_FILES", genders)
    return folder


def put(folder, *what: str) -> None:
    for name in what:
        if name in FILES:
            np.save(folder / FILES[name], standin.keypoint_regressor(name))
        else:
            arrays = standin.body()
            arrays["v_template"] = arrays["v_template"] * {"NEUTRAL": 1, "MALE": 1.1}.get(name, 0.9)
            np.savez(folder / f"SMPL_{name}.npz", **arrays)


def official(source: str, inside: str | None) -> Checkpoint:
    """A checkpoint that carries its body, with the regressor of a data mode."""
    carried = body.body_from_arrays(standin.body(), name="checkpoint")
    if inside:
        carried = carried.with_h36m_regressor(standin.keypoint_regressor(inside))
    return Checkpoint(source, {}, PRESETS["smpler"], True, carried)


def is_of(chosen: body.Body, mode: str) -> bool:
    expected = standin.keypoint_regressor(mode).astype("<f4")
    return chosen.regressor_sha256 == hashlib.sha256(expected.tobytes()).hexdigest()


def test_without_smpl_it_is_the_open_body_and_that_is_said(meta_data, caplog):
    caplog.set_level("INFO")
    for mode, file in FILES.items():
        assert choose(mode, file, None).name == "open"
    assert all("body=open" in message for message in caplog.messages) and len(caplog.messages) == 2


def test_smpls_keypoints_are_those_of_the_data_mode(meta_data):
    put(meta_data, "NEUTRAL", "h36m", "3dpw")
    for mode, file in FILES.items():
        chosen = choose(mode, file, None)
        assert chosen.name == "smpl" and is_of(chosen, mode)
    assert choose("open", None, None).name == "open", "rendered people are the open body's"


def test_a_checkpoints_regressor_gives_way_to_the_data_modes_file(meta_data):
    """Stage 3 starts from an h36m checkpoint in 3dpw mode."""
    put(meta_data, "3dpw")
    chosen = choose("3dpw", FILES["3dpw"], official("pretrained/SMPLer_h36m.pt", "h36m"))
    assert chosen.name == "checkpoint" and is_of(chosen, "3dpw")


@pytest.mark.parametrize("has_smpl", [False, True])
def test_a_3dpw_checkpoint_may_supply_the_regressor(has_smpl, meta_data):
    if has_smpl:
        put(meta_data, "NEUTRAL", "h36m")
    chosen = choose("3dpw", FILES["3dpw"], official("pretrained/SMPLer-L_3dpw.pt", "3dpw"))
    assert chosen.name == ("smpl" if has_smpl else "checkpoint") and is_of(chosen, "3dpw")


@pytest.mark.parametrize(
    ("mode", "source"),
    [
        ("3dpw", "pretrained/SMPLer_h36m.pt"),
        ("3dpw", "runs/3dpw/SMPLer_h36m.pt"),
        ("3dpw", "h36m_to_3dpw.pt"),
        ("h36m", "SMPLer_3dpw.pt"),
        ("h36m", "weights.pt"),
    ],
)
def test_no_other_checkpoint_may(mode, source, meta_data):
    with pytest.raises(FileNotFoundError, match=rf"{FILES[mode]} is missing.*{source} is not"):
        choose(mode, FILES[mode], official(source, "h36m"))


def test_smpl_without_a_regressor_is_an_error(meta_data):
    put(meta_data, "NEUTRAL")
    with pytest.raises(FileNotFoundError, match="J_regressor_3dpw.npy is missing, which data mode"):
        choose("3dpw", FILES["3dpw"], None)


def test_gendered_ground_truth_is_printed_beside_the_neutral_one(
    meta_data, tmp_path, monkeypatch, capsys
):
    """With an official checkpoint and stand-ins of all three bodies, end to end."""
    put(meta_data, "NEUTRAL", "MALE", "FEMALE", "h36m", "3dpw")
    write_all(tmp_path / "toy", num=2)
    monkeypatch.setenv("SMPLER_DATASETS", str(tmp_path / "toy"))
    state = standin.published_state_dict("smpler", "w32")
    state |= standin.published_body(standin.body(), standin.keypoint_regressor("3dpw"))
    file = tmp_path / "SMPLer_3dpw.pt"
    torch.save(state, file)
    flags = ["--eval_only", "--gendered", "--data_mode=3dpw", "--model_type=smpler"]
    flags += ["--device=cpu", "--num_workers=0", f"--log_root={tmp_path}"]
    assert main.main([*flags, f"--load_checkpoint={file}"]) == 0
    printed = capsys.readouterr().out
    for name in ("mpve", "mpjpe", "mpjpe-pa"):
        assert f"\n{name}: " in f"\n{printed}" and f"\n{name}-gendered: " in printed, printed
    result = json.loads((tmp_path / "smpler" / "eval_3dpw.json").read_text())
    metrics = result["metrics"]
    assert metrics["mpve-gendered"]["samples"] == 2
    assert metrics["mpve-gendered"]["mean_mm"] != metrics["mpve"]["mean_mm"]
    assert result["setting"]["body"] == "smpl" and result["setting"]["comparable"]
    expected = standin.keypoint_regressor("3dpw").astype("<f4").tobytes()
    assert result["setting"]["regressor_sha256"] == hashlib.sha256(expected).hexdigest()
