"""Training on what a frozen backbone saw: the same features, the same batches, and it learns."""

import itertools
import json

import numpy as np
import pytest
import torch

import main
from smpler.datasets.engine import stream as engine_stream
from smpler.datasets.mirroring import mirrored_batch
from smpler.models.body import open_body
from smpler.models.losses import SMPLLoss
from smpler.models.smpler import PRESETS, build_smpler, set_dropout
from smpler.models.weights.checkpoint import load_weights, read_checkpoint
from smpler.training import features
from smpler.training.checkpoint import load_checkpoint
from smpler.training.distributed import Processes, TrainSampler
from smpler.training.engine import Precision, measure
from smpler.training.features import EncodedBatches, crops_in_order, encode_crops, reading
from smpler.training.steps.optimizer import optimizer_for, parameter_groups
from smpler.training.steps.step import Step
from smpler.utils.paths import PRETRAINED
from tests.support.standin_wardrobe import wardrobe

CPU = torch.device("cpu")
RELEASED = PRETRAINED / "smpler_open_blaze.safetensors"
COUNT = 8


@pytest.fixture(scope="module")
def body():
    return open_body()


@pytest.fixture(scope="module")
def rendered(body):
    """The first crops of the stream, as a data set."""
    return engine_stream.SyntheticPeople(body, wardrobe(body), seed=5).first(COUNT)


@pytest.fixture(scope="module")
def blaze(body):
    """SMPLer-blaze on the released weights; its blocks are at their initialisation."""
    torch.manual_seed(0)
    model = build_smpler(PRESETS["smpler-blaze"], body)
    load_weights(model, read_checkpoint(RELEASED), stage_1_may_start=True)
    return model


@pytest.fixture(scope="module")
def crops(blaze, rendered):
    return encode_crops(blaze, reading(rendered, COUNT, 0), COUNT, CPU, "test")


def test_features_and_labels_are_those_of_fresh_crops_on_either_side(blaze, rendered, crops):
    fresh = torch.utils.data.default_collate([rendered[i] for i in range(COUNT)])
    index, flip = torch.arange(COUNT), torch.arange(COUNT) % 2 == 1
    kept = crops.batch(flip.long(), index)
    fresh = mirrored_batch(fresh, flip)
    with torch.no_grad():
        maps = blaze.eval().encode(fresh["image"])
        expected, found = blaze(fresh["image"])[-1], blaze(kept["image"])[-1]
    for x, y in zip(maps, kept["image"], strict=True):
        assert ((x - y).abs() <= 1e-3 * x.abs() + 1e-3).all()
    distance = (expected.vertices - found.vertices).norm(dim=-1).max().item()
    assert distance < 1e-3, f"{distance} m by half precision"
    for name in (*features.LABELS, *features.FLAGS):
        assert torch.equal(kept[name], fresh[name]), name
    sample = crops[3]
    assert torch.equal(sample["image"][0], crops.batch(0 * index, index)["image"][0][3])
    assert sample["key"] == rendered[3]["key"] and sample["index"] == rendered[3]["index"]


def test_what_is_the_same_at_every_pixel_is_kept_once(blaze, crops):
    maps = crops.maps[-1]
    num_uniform = blaze.backbone.uniform_channels
    assert maps.uniform.shape == (2, COUNT, num_uniform)
    assert maps.varied.shape == (2, COUNT, blaze.backbone.channels[-1] - num_uniform, 8, 8)
    tensors = [x for part in crops.maps for x in (part.varied, part.uniform)]
    each = sum(x.numel() * x.element_size() for x in tensors) / 2 / COUNT
    assert each < 150_000, f"{each} bytes a crop and side"


def test_batches_depend_on_seed_and_epoch_alone_and_mirror_half(crops):
    def sides(epoch: int, first_batch: int = 0, seed: int = 1) -> list:
        sampler = TrainSampler(COUNT, 2, Processes(0, 1, CPU), seed=3)
        sampler.set_position(epoch, first_batch)
        return [batch["pose"] for batch in EncodedBatches(crops, seed)(sampler)]

    first = sides(0)
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, sides(0), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[2:], sides(0, 2), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, sides(1), strict=True))
    share = torch.stack([EncodedBatches(crops, seed)._sides(0) for seed in range(200)])
    assert abs(share.float().mean().item() - 0.5) < 0.05


def test_more_features_than_memory_holds_are_one_sentence(blaze, rendered, monkeypatch):
    monkeypatch.setattr(features, "free_bytes", lambda device: 1_000_000)
    with pytest.raises(ValueError, match="features of 8 crops take 0.0 GiB.*--cache_features 2 or"):
        encode_crops(blaze, reading(rendered, COUNT, 0), COUNT, CPU, "test")


def test_crops_are_encoded_in_their_order(monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 3)
    assert crops_in_order(8) == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.fixture
def small_engine(monkeypatch, body):
    clothes = wardrobe(body)
    monkeypatch.setattr(engine_stream, "load_wardrobe", lambda: clothes)
    monkeypatch.setattr(engine_stream, "VALIDATION_SIZE", 4)


def run(logs, *flags: str) -> int:
    common = ("--data_mode=open", "--device=cpu", "--num_workers=0", f"--log_root={logs}")
    small = ("--batch_size=2", "--backbone=blazepose-full", "--num_transformers=1")
    return main.main([*common, *small, *flags])


def weights(folder) -> dict:
    return load_checkpoint(folder / "checkpoints" / "last.pt")


@pytest.mark.first
def test_a_training_on_features_leaves_the_backbone_and_continues_exactly(small_engine, tmp_path):
    """Also when the checkpoint that it began from, whose backbone saw the crops, is not given."""
    flags = ("--cache_features=4", "--regressor_lr=0.1", "--model_type=smpler", "--ema=0.9")
    assert run(tmp_path, *flags, "--exp_name=other", "--num_epochs=1", "--seed=5") == 0
    start = f"--load_checkpoint={tmp_path / 'other' / 'checkpoints' / 'last.pt'}"
    assert run(tmp_path, *flags, start, "--exp_name=whole", "--num_epochs=2") == 0
    assert run(tmp_path, *flags, start, "--exp_name=parts", "--num_epochs=1") == 0
    first = weights(tmp_path / "parts")
    assert run(tmp_path, *flags, "--exp_name=parts", "--num_epochs=2", "--auto_load=1") == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole["global_iter"] == 4 and whole["num_samples"] == 4
    for name, value in whole["trained"].items():
        assert torch.equal(value, parts["trained"][name]), name
    began = weights(tmp_path / "other")["model"]
    for before, after in ((began, first["trained"]), (first["trained"], whole["trained"])):
        moved = {name for name, x in after.items() if not torch.equal(x, before[name])}
        assert {name.split(".")[0] for name in moved} == {"regressor", "query_embedding", "blocks"}
    result = json.loads((tmp_path / "whole" / "evaluations" / "epoch_001.json").read_text())
    assert result["metrics"]["mpjpe"]["samples"] == 4


def test_too_few_crops_for_a_batch_are_named(small_engine, tmp_path, capsys):
    assert run(tmp_path, "--cache_features=1") == 2
    assert "1 training samples do not fill one batch of 2" in capsys.readouterr().out


def test_evaluation_on_features_is_that_on_crops(small_engine, tmp_path):
    flags = ("--exp_name=run", "--cache_features=4", "--num_epochs=1", "--model_type=smpler")
    assert run(tmp_path, *flags) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    flags = ("--eval_only", f"--load_checkpoint={checkpoint}", "--model_type=smpler")
    assert run(tmp_path, "--exp_name=again", *flags) == 0
    on_features = np.load(tmp_path / "run" / "evaluations" / "epoch_000.npz")
    on_crops = np.load(tmp_path / "again" / "eval_open.npz")
    assert on_features["key"].tolist() == on_crops["key"].tolist()
    for name in ("mpjpe", "mpve"):
        assert np.abs(on_features[name] - on_crops[name]).max() < 2e-3, name


def test_a_training_ends_with_its_time_and_the_next_one_goes_on(small_engine, tmp_path, capsys):
    flags = ("--exp_name=run", "--cache_features=4", "--num_epochs=1000", "--lr_schedule=cosine")
    assert run(tmp_path, *flags, "--minutes=0.02") == 0
    state = weights(tmp_path / "run")
    assert 0 < state["global_iter"] < 2000 and state["elapsed_s"] >= 1.2
    assert (tmp_path / "run" / "evaluations" / f"epoch_{state['epoch']:03d}.json").is_file()
    capsys.readouterr()
    assert run(tmp_path, *flags, "--minutes=0.02", "--auto_load=1") == 0
    assert "has its minutes already" in capsys.readouterr().out
    epochs = state["finished_epochs"] + 3
    assert run(tmp_path, *flags, "--minutes=9", f"--num_epochs={epochs}", "--auto_load=1") == 0
    assert weights(tmp_path / "run")["finished_epochs"] == epochs


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--regressor_lr=0.1",), "--regressor_lr is for --cache_features"),
        (("--cache_features=4", "--eval_only"), "for training, not for --eval_only"),
        (("--cache_features=4", "--flip_test"), "leave out --flip_test"),
        (("--cache_features=4", "--data_mode=h36m"), "--cache_features is for --data_mode=open"),
        (("--cache_features=0",), "'0' is not a whole number from 1"),
    ],
)
def test_flags_without_sense_are_one_sentence(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_blocks_learn_what_the_regressor_alone_cannot(blaze, crops):
    """On few crops, with the regressor frozen, each stage becomes better than the one before."""
    blaze.requires_grad_(True)
    blaze.backbone.requires_grad_(False)
    blaze.regressor.requires_grad_(False)
    set_dropout(blaze, 0.0)
    blaze.train()
    criterion = SMPLLoss(blaze.smpl, w_3dj=200.0, w_2dj=60.0, joint_criterion="l1")
    groups = parameter_groups(blaze, regressor_lr=0.0)
    optimizer = optimizer_for(groups, lr=2e-4, recorded=False)
    step = Step(blaze, criterion, optimizer, Precision(CPU), clip_grad=500.0, supervise="all")
    index = torch.arange(COUNT)
    batch = crops.batch(torch.zeros_like(index), index)
    for number in range(30):
        step(batch, 2e-4 * min(1.0, (number + 1) / 10), lambda terms: None)
    blaze.eval()
    with torch.no_grad():
        stages = blaze(batch["image"], all_stages=True)
    errors = [1000 * measure(stage, blaze.smpl, batch)["mpjpe"].mean().item() for stage in stages]
    assert errors[-1] < 0.85 * errors[0], errors
    assert all(later < earlier + 1 for earlier, later in itertools.pairwise(errors)), errors
