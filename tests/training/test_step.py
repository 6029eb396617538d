"""Steps that are recorded: on the CPU a recorder that plays the work back itself stands in."""

import copy
import logging
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from smpler.models.losses import SMPLLoss
from smpler.models.smpler import set_dropout
from smpler.training.engine import LossLog, Precision, train_one_epoch
from smpler.training.steps.optimizer import (
    load_optimizer_state,
    optimizer_for,
    optimizer_state,
)
from smpler.training.steps.step import PLAIN_STEPS, RecordedStep, Step, record_cuda_graph
from smpler.training.steps.weight_average import WeightAverage
from tests.support.tiny_model import tiny_model

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batches(count: int, device: torch.device = CPU) -> list[dict]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    return [
        {
            "image": normal(2, 3, 224, 224),
            "pose": 0.3 * normal(2, 72),
            "betas": normal(2, 10),
            "keypoints_3d": normal(2, 14, 4).abs(),
            "keypoints_2d": normal(2, 14, 3).abs(),
            "has_smpl": torch.tensor([True, False], device=device),
            "has_keypoints_3d": torch.tensor([True, True], device=device),
            "key": ["a", "b"],
        }
        for _ in range(count)
    ]


def play_back(work):
    """Record as a CUDA graph does: results always lie in the same memory."""
    kept: list[Tensor] = []

    def play():
        values, estimates = work()
        kept[:] = kept or [torch.empty_like(values)]
        kept[0].copy_(values)
        return kept[0], estimates

    return play


def trained(model: nn.Module, record, count: int, device: torch.device = CPU, **options):
    """Train a copy; return its weights, their average, the losses and the optimiser."""
    model = copy.deepcopy(model).to(device).train()
    torch.manual_seed(0)
    average = WeightAverage(model, decay=0.5)
    groups = [{"params": list(model.parameters()), "factor": 1.0}]
    optimizer = optimizer_for(groups, lr=1e-3, recorded=device.type == "cuda" and bool(record))
    criterion = SMPLLoss(model.smpl, w_betas=0.1)
    named = {"clip_grad": 50.0, "supervise": "all", "average": average} | options
    arguments = model, criterion, optimizer, Precision(device)
    step = RecordedStep(*arguments, record=record, **named) if record else Step(*arguments, **named)
    losses: list[dict[str, float]] = []
    log = LossLog()

    def check(terms: dict[str, Tensor]) -> None:
        losses.append(dict(terms))

    for number, batch in enumerate(batches(count, device)):
        step(batch, 1e-3 / (number + 1), check)
        log.add(number, losses[-1])
    log.read()
    rows = [{name: value.item() for name, value in row.items()} for row in losses]
    return model.state_dict(), average, rows, optimizer


def test_a_recorded_step_is_the_plain_one(monkeypatch):
    model = tiny_model(monkeypatch)
    plain, recorded = trained(model, None, 6), trained(model, play_back, 6)
    for (name, a), b in zip(plain[0].items(), recorded[0].values(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), b in zip(
        plain[1].module.state_dict().items(), recorded[1].module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert plain[1].num_updates == recorded[1].num_updates == 6
    assert plain[2] == recorded[2] and len({row["rotmat"] for row in plain[2]}) == 6


def test_a_step_that_cannot_be_recorded_runs_plainly(monkeypatch, caplog):
    def fail(work):
        raise RuntimeError("operation not permitted\nwhen a stream captures")

    model = tiny_model(monkeypatch)
    with caplog.at_level(logging.WARNING):
        recorded = trained(model, fail, 6)
    assert recorded[2] == trained(model, None, 6)[2]
    assert [record.message for record in caplog.records] == [
        "The step cannot be recorded as a CUDA graph and runs plainly: operation not permitted"
    ]


def test_a_loss_that_is_not_finite_is_found_though_the_steps_are_recorded(monkeypatch):
    model = tiny_model(monkeypatch).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = RecordedStep(model, SMPLLoss(model.smpl), optimizer, Precision(CPU), record=play_back)
    given = batches(PLAIN_STEPS + 3)
    given[PLAIN_STEPS + 1]["image"] *= float("nan")
    with pytest.raises(FloatingPointError, match=f"not finite at step {PLAIN_STEPS + 1}"):
        train_one_epoch(step, given, CPU, lambda number: 0.0, first_step=0, read_every=100)


class HostCopies(TorchDispatchMode):
    """Counts what copies between the CPU and a GPU, or waits for one: no graph can record that."""

    NAMES = ("lift_fresh", "_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.counts[name] += name in self.NAMES
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_nothing_in_a_step_is_copied_from_the_host(dropout, monkeypatch):
    model = tiny_model(monkeypatch).train()
    set_dropout(model, dropout)
    criterion = SMPLLoss(model.smpl, w_betas=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = Step(model, criterion, optimizer, Precision(CPU, bf16=True), supervise="all")
    (batch,) = batches(1)
    with HostCopies() as copies:
        terms, _ = step.look(batch)
        step.learn(terms)
    found = {name: count for name, count in copies.counts.items() if count}
    assert not found and copies.counts, found


def test_attention_asks_for_no_random_state(monkeypatch):
    """A graph draws numbers by a counter of its own, whose state cannot be read meanwhile."""
    model = tiny_model(monkeypatch).train()
    monkeypatch.setattr(torch, "get_rng_state", lambda: pytest.fail("the state was read"))
    model(batches(1)[0]["image"])[-1].rotmat.sum().backward()


def test_a_checkpoint_of_the_optimiser_fits_both_kinds_of_steps():
    parameter = nn.Parameter(torch.ones(3))
    plain = optimizer_for([{"params": [parameter], "factor": 1.0}], lr=0.1, recorded=False)
    parameter.grad = torch.ones(3)
    plain.step()
    recorded = optimizer_for([{"params": [parameter], "factor": 1.0}], lr=0.5, recorded=True)
    rate = recorded.param_groups[0]["lr"]
    load_optimizer_state(recorded, optimizer_state(plain))
    (group,) = recorded.param_groups
    assert group["lr"] is rate and rate.item() == pytest.approx(0.1) and group["capturable"]
    state = optimizer_state(recorded)
    assert type(state["param_groups"][0]["lr"]) is float
    assert torch.equal(state["state"][0]["exp_avg"], plain.state_dict()["state"][0]["exp_avg"])
    load_optimizer_state(plain, state)
    assert plain.param_groups[0]["lr"] == pytest.approx(0.1)
    assert not plain.param_groups[0]["capturable"]


def test_each_group_has_its_own_rate_also_where_it_is_a_tensor(monkeypatch):
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [first], "factor": 1.0}, {"params": [second], "factor": 0.25}]
    optimizer = optimizer_for(groups, lr=1.0, recorded=True)
    step = Step(nn.ParameterList([first, second]), None, optimizer, Precision(CPU))
    rates = [group["lr"] for group in optimizer.param_groups]
    step.set_rate(0.1)
    assert [group["lr"] for group in optimizer.param_groups] == rates, "they are other tensors"
    assert [rate.item() for rate in rates] == pytest.approx([0.1, 0.025])


@needs_gpu
def test_on_a_gpu_the_losses_are_the_plain_ones(monkeypatch):
    device = torch.device("cuda")
    model = tiny_model(monkeypatch)
    set_dropout(model, 0.0)
    plain = trained(model, None, 50, device)
    recorded = trained(model, record_cuda_graph, 50, device)
    for number, (a, b) in enumerate(zip(plain[2], recorded[2], strict=True)):
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-3), (number, name)


@needs_gpu
def test_on_a_gpu_a_recording_that_fails_half_way_leaves_a_training_that_goes_on(monkeypatch):
    device = torch.device("cuda")

    def fails(work):
        def half_done():
            work()
            return torch.nn.functional.dropout(torch.ones(3, device=device)).sum().item()

        return record_cuda_graph(half_done)

    model = tiny_model(monkeypatch)
    rows = trained(model, fails, PLAIN_STEPS + 3, device)[2]
    assert len({row["rotmat"] for row in rows}) == PLAIN_STEPS + 3
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


@needs_gpu
def test_on_a_gpu_dropout_differs_from_step_to_step(monkeypatch):
    device = torch.device("cuda")
    model = tiny_model(monkeypatch).to(device).train()
    optimizer = optimizer_for(
        [{"params": list(model.parameters()), "factor": 1.0}], lr=0.0, recorded=True
    )
    arguments = model, SMPLLoss(model.smpl).to(device), optimizer, Precision(device)
    step = RecordedStep(*arguments, record=record_cuda_graph)
    (batch,) = batches(1, device)
    seen = []
    for _ in range(PLAIN_STEPS + 5):
        step(batch, 0.0, lambda terms: seen.append(terms["rotmat"].item()))
    assert len(set(seen[PLAIN_STEPS:])) == 5, seen
