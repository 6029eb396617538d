import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from smpler.models.losses import SMPLLoss
from smpler.models.smpl import SMPL, GenderedSMPL
from smpler.training.distributed import Processes
from smpler.training.engine import (
    FLAGS,
    Precision,
    measure,
    measure_gendered,
    merge_shards,
    summarise,
    train_one_epoch,
)
from smpler.training.report import Evaluation
from smpler.training.steps.step import Step
from smpler.utils.geometry import axis_angle_to_rotmat, rot6d_to_rotmat
from smpler.utils.joints import SMPL_NAMES, mirrored
from tests.models.test_smpl import random_pose

CPU = torch.device("cpu")
NUM_SAMPLES = 101  # neither 2 nor 3 divides it


def given_errors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    errors = {name: rng.gamma(2, 0.03, NUM_SAMPLES) for name in ("mpjpe", "mpjpe-pa", "mpve")}
    flags = {name: np.ones(NUM_SAMPLES, bool) for name in FLAGS}
    flags["has_smpl"][::3] = False
    errors["mpve"][::3] = np.nan
    keys = np.array([f"person {number}" for number in range(NUM_SAMPLES)])
    return {"index": np.arange(NUM_SAMPLES), "key": keys} | flags | errors


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 150])
def test_any_number_of_processes_gives_the_single_process_metric(world_size):
    errors = given_errors()
    shards = []
    for rank in range(world_size):
        own = list(Processes(rank, world_size, torch.device("cpu")).shard(NUM_SAMPLES))
        shards.append({name: values[own] for name, values in errors.items()})
    assert sum(len(shard["index"]) for shard in shards) == NUM_SAMPLES
    merged = merge_shards(shards)
    for name, values in errors.items():
        assert np.array_equal(merged[name], values, equal_nan=values.dtype == float), name
    for name, value in summarise(merged).items():
        expected = 1000 * np.nanmean(errors[name])
        assert abs(value["mean_mm"] - expected) < 1e-12 * expected, (name, value, expected)
        assert value == summarise(errors)[name]
    assert summarise(merged)["mpve"]["samples"] == 67


def test_metrics_that_no_sample_has_are_left_out():
    errors = given_errors() | {"has_smpl": np.zeros(NUM_SAMPLES, bool)}
    assert list(summarise(errors)) == ["mpjpe", "mpjpe-pa"]


def test_evaluation_prints_the_published_lines_and_the_rule(tmp_path):
    evaluation = Evaluation(given_errors(), {"name": "3dpw", "rule": "The rule."}, {"body": "open"})
    lines = evaluation.lines()
    for line, name in zip(lines, ("mpve", "mpjpe", "mpjpe-pa"), strict=False):
        label, value = line.split(": ")
        assert label == name and len(value.split(".")[1]) == 3
    assert any("The rule." in line for line in lines) and "body=open" in lines[-1]
    evaluation.save(tmp_path, "eval")
    assert {path.name for path in tmp_path.iterdir()} == {"eval.json", "eval.npz", "eval.md"}
    assert len(np.load(tmp_path / "eval.npz")["mpjpe"]) == NUM_SAMPLES
    assert "| 3dpw |" in (tmp_path / "eval.md").read_text()


def tiny_batch(layer: SMPL) -> tuple:
    pose, betas = random_pose(3, torch.float32)
    posed = layer(pose, betas)
    cam = torch.tensor([[0.9, 0.1, -0.2]]).expand(3, -1)
    estimate = layer.estimate(axis_angle_to_rotmat(pose.unflatten(1, (24, 3))), betas, cam)
    batch = {
        "pose": pose,
        "betas": betas,
        "gender": torch.tensor([0, 1, 2]),
        "keypoints_3d": torch.cat([posed.keypoints_3d, torch.ones(3, 14, 1)], dim=-1),
        "has_keypoints_3d": torch.tensor([True, False, True]),
        "has_smpl": torch.tensor([True, True, False]),
    }
    return estimate, batch


def test_a_perfect_estimate_has_no_error_and_absent_labels_are_nan(tiny_body):
    layer = SMPL(tiny_body)
    estimate, batch = tiny_batch(layer)
    errors = measure(estimate, layer, batch)
    assert errors["mpve"].isnan().tolist() == [False, False, True]
    assert errors["mpjpe"].isnan().tolist() == [False, True, False]
    for name, error in errors.items():
        assert error.nan_to_num().max() < 1e-6, (name, error)


@pytest.mark.parametrize("name", ["betas", "pose", "keypoints_3d"])
@pytest.mark.parametrize("value", [3e38, float("inf"), float("nan")])
def test_a_label_that_gives_no_body_is_named(name, value, tiny_body):
    layer = SMPL(tiny_body)
    estimate, batch = tiny_batch(layer)
    batch["key"] = ["a", "b", "c"]
    batch[name][0, 0] = value
    if name == "pose" and value == 3e38:
        return  # an angle as any other
    with pytest.raises(ValueError, match="The label of sample a is wrong: its (vert|keyp)"):
        measure(estimate, layer, batch)
    batch[name][0, 0], batch[name][2, 0] = 0.0, value
    if name != "keypoints_3d":
        errors = measure(estimate, layer, batch)  # c has no SMPL
        assert errors["mpve"].isfinite().tolist() == [True, True, False], errors


def test_gendered_ground_truth_is_each_persons_own_body(tiny_body):
    layer = SMPL(tiny_body)
    male = SMPL(replace(tiny_body, v_template=tiny_body.v_template * np.float32(1.1)))
    female = SMPL(replace(tiny_body, v_template=tiny_body.v_template * np.float32(0.8)))
    estimate, batch = tiny_batch(layer)
    batch["has_smpl"] = torch.tensor([True, True, True])
    gendered = GenderedSMPL(layer, male, female)
    errors = measure_gendered(estimate, gendered, batch)["mpve-gendered"]
    target = male(batch["pose"], batch["betas"])
    difference = (
        (estimate.vertices - estimate.pelvis[:, None]) - (target.vertices - target.pelvis[:, None])
    )[1]
    expected = torch.linalg.vector_norm(difference, dim=-1).mean()
    assert errors[0] < 1e-6 and math.isclose(errors[1], expected, rel_tol=1e-5), errors
    assert errors[2] > 0.01, errors


def test_averaging_with_the_exact_mirror_image_changes_nothing(tiny_body):
    layer = SMPL(tiny_body).double()
    pose, betas = random_pose(2)
    rotmat = axis_angle_to_rotmat(pose.unflatten(1, (24, 3)))
    cam = torch.tensor([[0.9, 0.1, -0.2]]).double().expand(2, -1)
    estimate = layer.estimate(rotmat, betas, cam)
    swapped = pose.unflatten(1, (24, 3))[:, list(mirrored(SMPL_NAMES))]
    other = axis_angle_to_rotmat(swapped * torch.tensor([1.0, -1.0, -1.0]))
    reflected = layer.estimate(other, betas, cam * torch.tensor([1.0, -1.0, 1.0]))
    average = layer.average_with_mirrored(estimate, reflected)
    error = (average.vertices - estimate.vertices).abs().max().item()
    assert error < 1e-12, error
    assert torch.allclose(average.cam, estimate.cam)


def test_average_of_two_rotations_lies_half_way(tiny_body):
    layer = SMPL(tiny_body).double()
    pose, betas = torch.zeros(1, 72).double(), torch.zeros(1, 10).double()
    pose[0, 5] = 0.6  # left hip about z; the mirrored estimate says 0
    cam = torch.tensor([[1.0, 0.0, 0.0]]).double()
    bent = layer.estimate(axis_angle_to_rotmat(pose.unflatten(1, (24, 3))), betas, cam)
    straight = layer.estimate(axis_angle_to_rotmat(torch.zeros(1, 24, 3).double()), betas, cam)
    half = layer.average_with_mirrored(bent, straight).rotmat[0, 1]
    expected = axis_angle_to_rotmat(torch.tensor([0.0, 0.0, 0.3]).double())
    assert torch.allclose(half, expected), half


class TwoStages(torch.nn.Module):
    """Each stage adds its own number; the second starts from a detached first."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Parameter(torch.tensor(1.0))
        self.second = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, image, all_stages=False):
        early = image * self.first
        return [early, early.detach() + self.second]


class SquaredError(torch.nn.Module):
    def with_target(self, batch):
        return batch

    def forward(self, estimate, batch):
        return {"error": estimate.square().mean()}


@pytest.mark.parametrize(("supervise", "moves_first"), [("last", False), ("all", True)])
def test_supervising_all_stages_teaches_the_early_ones(supervise, moves_first):
    model, seen = TwoStages(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(
        Step(model, SquaredError(), optimizer, Precision(CPU), supervise=supervise),
        [{"image": torch.ones(3)}],
        CPU,
        learning_rate=lambda step: 0.1,
        first_step=0,
        after_step=lambda step, losses, batch, estimates: seen.append(losses.latest["error"]),
    )
    # the stages' errors are 1 and 9
    assert seen == [5.0 if moves_first else 9.0]
    assert (model.first.item() != 1.0) == moves_first and model.second.item() != 2.0


def test_each_group_of_parameters_has_its_own_learning_rate():
    model = TwoStages()
    groups = [
        {"params": [parameter], "factor": factor}
        for parameter, factor in zip(model.parameters(), (1.0, 0.25), strict=True)
    ]
    rates = []
    optimizer = torch.optim.SGD(groups, lr=1.0)
    train_one_epoch(
        Step(model, SquaredError(), optimizer, Precision(CPU), supervise="all"),
        [{"image": torch.ones(3)}],
        CPU,
        learning_rate=lambda step: 0.1,
        first_step=0,
        after_step=lambda *_: rates.extend(group["lr"] for group in optimizer.param_groups),
    )
    assert rates == pytest.approx([0.1, 0.025])


class BrokenLoss(SquaredError):
    """Becomes NaN at the third step."""

    calls = 0

    def forward(self, estimate, batch):
        self.calls += 1
        return {"error": estimate.square().mean() * (float("nan") if self.calls == 3 else 1)}


@pytest.mark.parametrize(("read_every", "steps_done"), [(1, 2), (4, 3), (100, 8)])
def test_a_broken_loss_is_named_at_the_next_reading(read_every, steps_done):
    model, seen = TwoStages(), []
    with pytest.raises(FloatingPointError, match="not finite at step 2: error nan"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        train_one_epoch(
            Step(model, BrokenLoss(), optimizer, Precision(CPU)),
            [{"image": torch.ones(3)}] * 8,
            CPU,
            learning_rate=lambda step: 0.01,
            first_step=0,
            read_every=read_every,
            after_step=lambda step, *_: seen.append(step),
        )
    assert len(seen) == steps_done, seen


class CountReadings(TorchDispatchMode):
    """Counts what would make the program wait for a GPU."""

    names = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::_to_copy")

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func._schema.name] += func._schema.name in self.names
        return func(*args, **(kwargs or {}))


def test_nothing_in_a_step_waits_for_the_device(tiny_body):
    layer = SMPL(tiny_body)
    _, batch = tiny_batch(layer)
    batch |= {"image": torch.zeros(3, 1), "keypoints_2d": torch.ones(3, 14, 3)}
    model, criterion = OneBody(layer), SMPLLoss(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    with CountReadings() as readings:
        train_one_epoch(
            Step(model, criterion, optimizer, Precision(CPU), clip_grad=1.0),
            [batch] * 3,
            CPU,
            learning_rate=lambda step: 0.01,
            first_step=0,
            read_every=100,
        )
    waits = {name: count for name, count in readings.counts.items() if count}
    assert not waits, waits


class OneBody(torch.nn.Module):
    """The same pose for every image."""

    def __init__(self, layer: SMPL):
        super().__init__()
        self.layer = [layer]
        self.rot6d = torch.nn.Parameter(torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(24, 1))

    def forward(self, images):
        rotmat = rot6d_to_rotmat(self.rot6d).expand(len(images), -1, -1, -1)
        zeros = torch.zeros(len(images), 10)
        return [self.layer[0].estimate(rotmat, zeros, torch.ones(len(images), 3))]
