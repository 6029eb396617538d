import json

import numpy as np
import pytest
import torch

import main
from smpler.datasets import PROTOCOLS
from smpler.datasets.human_mesh import HumanMesh
from smpler.models.body import open_body
from smpler.models.smpler import SMPLerConfig
from smpler.training import assembly
from smpler.training.engine import Precision, merge_shards, predict
from smpler.training.report import Evaluation
from tests.support.small_main import build_tiny
from tests.support.tsv_data import table, write_random_set
from tests.training.test_engine import NUM_SAMPLES as NUM_GIVEN
from tests.training.test_engine import given_errors

NUM_SAMPLES = 5
SPOILED = {1: float("nan"), 3: float("inf")}
"""Sample -> what its picture is filled with; the network passes it on."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for path in (PROTOCOLS["3dpw"].evaluate, PROTOCOLS["3dpw"].train):
        write_random_set(folder / path, num=NUM_SAMPLES)
    return folder


@pytest.fixture
def run(tmp_path, toy, monkeypatch):
    """Call main.py in this process, on toy data, with a tiny backbone."""
    monkeypatch.setattr(assembly, "build_smpler", build_tiny)
    monkeypatch.setenv("SMPLER_DATASETS", str(toy))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    common = ("--device=cpu", "--num_workers=0", "--data_mode=3dpw", "--val_batch_size=2")
    return lambda *flags: main.main([*common, f"--log_root={tmp_path}", *flags])


@pytest.fixture
def spoiled(monkeypatch):
    load = HumanMesh.load

    def load_spoiled(self, index, augmentation):
        item = load(self, index, augmentation)
        if not self.training and index in SPOILED:
            item["image"] = torch.full_like(item["image"], SPOILED[index])
        return item

    monkeypatch.setattr(HumanMesh, "load", load_spoiled)


def one_error(capsys) -> str:
    output = capsys.readouterr().out
    (error,) = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in output
    return error


def test_predictions_that_are_not_finite_are_left_out_and_named(run, tmp_path, spoiled, capsys):
    assert run("--eval_only", "--exp_name=spoiled", "--flip_test") == 2
    error = one_error(capsys)
    errors = dict(np.load(tmp_path / "spoiled/eval_3dpw.npz"))
    result = json.loads((tmp_path / "spoiled/eval_3dpw.json").read_text())
    names = errors["key"][list(SPOILED)].tolist()
    assert "2 of 5 predictions are not finite and count in no mean" in error
    assert ", ".join(names) in error, error
    assert errors["is_finite"].tolist() == [index not in SPOILED for index in range(NUM_SAMPLES)]
    assert result["not_finite"] == names and result["samples"] == NUM_SAMPLES
    for name in ("mpve", "mpjpe", "mpjpe-pa"):
        others = np.delete(errors[name], list(SPOILED))
        assert np.isfinite(others).all() and result["metrics"][name]["samples"] == 3
        assert abs(result["metrics"][name]["mean_mm"] - 1000 * others.mean()) < 1e-9, name


def test_training_goes_on_and_such_an_epoch_is_never_the_best(run, tmp_path, spoiled, capsys):
    flags = ("--exp_name=run", "--batch_size=2", "--num_epochs=1")
    assert run(*flags) == 0
    assert "epoch 000: 2 of 5 predictions are not finite" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert names == {"last.pt", "epoch_000.pt"}, names


@pytest.mark.parametrize("world_size", [1, 2, 7])
def test_what_is_not_finite_is_the_same_on_any_number_of_processes(world_size):
    errors = given_errors()
    for row in (5, 6, 50):
        errors["is_finite"][row] = False
        errors["mpjpe"][row] = np.inf
    shards = [
        {name: values[rank::world_size] for name, values in errors.items()}
        for rank in range(world_size)
    ]
    evaluation = Evaluation(merge_shards(shards), {"rule": ""}, {})
    assert evaluation.not_finite == ["person 5", "person 6", "person 50"]
    counts = {name: value["samples"] for name, value in evaluation.summary.items()}
    assert counts == {"mpve": 65, "mpjpe": NUM_GIVEN - 3, "mpjpe-pa": NUM_GIVEN - 3}
    assert evaluation.summary == Evaluation(errors, {}, {}).summary
    assert not {5, 6, 50} & {index for index, _ in evaluation.worst(NUM_GIVEN)}


def test_an_average_with_the_mirrored_image_keeps_to_its_own_sample():
    torch.manual_seed(0)
    model = build_tiny(SMPLerConfig("hrnet-w32", num_blocks=0), open_body()).eval()
    images, precision = torch.rand(3, 3, 224, 224), Precision(torch.device("cpu"))
    expected = predict(model, images, precision, flip_test=True)
    images[1] = float("nan")
    found = predict(model, images, precision, flip_test=True)
    assert found.vertices[[0, 2]].equal(expected.vertices[[0, 2]])
    assert found.vertices[1].isnan().all() and found.keypoints_3d[1].isnan().all()


def test_an_empty_evaluation_set_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "data" / PROTOCOLS["3dpw"].evaluate
    write_random_set(path, num=1)
    table(path, "linelist").write_text("")
    monkeypatch.setenv("SMPLER_DATASETS", str(tmp_path / "data"))
    assert run("--eval_only") == 2
    assert "holds no sample to evaluate on" in one_error(capsys)


def test_a_set_without_annotations_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    load = HumanMesh.load
    nothing = {"has_smpl": False, "has_keypoints_3d": False}
    monkeypatch.setattr(HumanMesh, "load", lambda *args: load(*args) | nothing)
    assert run("--eval_only") == 2
    assert "None of the 5 samples is annotated" in one_error(capsys)
