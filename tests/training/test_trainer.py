import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto import event_pb2

from smpler.training.checkpoint import load_checkpoint, save_atomically
from smpler.training.distributed import Processes, TrainSampler
from smpler.training.steps.optimizer import parameter_groups
from smpler.training.steps.schedule import Schedule
from smpler.training.steps.weight_average import WeightAverage
from smpler.training.summary import Summary
from tests.support.programs import Done, run
from tests.support.tiny_training import tiny_options

CPU = torch.device("cpu")


def train(folder: Path, *arguments, **kwargs) -> Done:
    return run("tests.support.tiny_training", folder, *arguments, **kwargs)


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / name)["model"]


def assert_identical(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        difference = (first[name].double() - second[name].double()).abs().max().item()
        assert torch.equal(first[name], second[name]), (name, difference)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder).check()
    return folder


@pytest.mark.parametrize(
    ("kill_at", "workers"),
    [(30, 0), (34, 0), (36, 0), (34, 2)],
    ids=["epoch's end", "mid-epoch, between saves", "mid-epoch, at a save", "2 workers"],
)
def test_resume_equals_uninterrupted_training(kill_at, workers, uninterrupted, tmp_path):
    died = train(tmp_path, "--kill_at", kill_at, "--num_workers", workers)
    assert died.returncodes == (-signal.SIGKILL,), died.output
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["global_iter"] < 60
    train(tmp_path, "--resume", "--num_workers", workers).check()
    assert_identical(weights(tmp_path), weights(uninterrupted))


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_on_two_processes_equals_uninterrupted_training(workers, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, "--num_workers", workers, processes=2).check()
    died = train(cut, "--num_workers", workers, "--kill_at", 34, processes=2)
    assert died.returncodes[0] == -signal.SIGKILL and died.returncodes[1] != 0, died
    train(cut, "--num_workers", workers, "--resume", processes=2).check()
    assert_identical(weights(cut), weights(whole))


@pytest.mark.parametrize("processes", [1, 2])
def test_averaged_weights_are_continued_too(processes, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, "--ema", 0.9, processes=processes).check()
    train(cut, "--ema", 0.9, "--kill_at", 34, processes=processes)
    train(cut, "--ema", 0.9, "--resume", processes=processes).check()
    assert_identical(weights(cut), weights(whole))
    state = load_checkpoint(whole / "checkpoints" / "last.pt")
    assert not torch.equal(state["model"]["layers.0.weight"], state["trained"]["layers.0.weight"])


def test_a_crash_while_saving_leaves_the_checkpoint_before(uninterrupted, tmp_path):
    died = train(tmp_path, "--kill_while_saving", 4)
    assert died.returncodes == (-signal.SIGKILL,), died.output
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["global_iter"] > 0
    assert list((tmp_path / "checkpoints").glob("*.part"))
    train(tmp_path, "--resume").check()
    assert_identical(weights(tmp_path), weights(uninterrupted))
    assert not list((tmp_path / "checkpoints").glob("*.part")), "halves are cleared away"


def test_checkpoints_carry_the_published_names(uninterrupted):
    names = {path.name for path in (uninterrupted / "checkpoints").iterdir()}
    assert names == {"epoch_001.pt", "epoch_003.pt", "epoch_005.pt", "last.pt"}
    state = load_checkpoint(uninterrupted / "checkpoints" / "epoch_003.pt")
    assert (state["epoch"], state["global_iter"]) == (3, 40)


def test_tensorboard_gets_losses_pictures_and_the_configuration(uninterrupted):
    events = list(read_events(uninterrupted))
    steps = {}
    for event in events:
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    every_ten = list(range(10, 61, 10))
    for tag in ("loss/first", "loss/second", "loss/total", "lr", "images_per_second", "train"):
        assert steps[tag] == every_ten, (tag, steps[tag])
    assert steps["config/text_summary"] == [0]
    text = next(v for e in events for v in e.summary.value if v.tag.startswith("config"))
    assert b"num_samples" in text.tensor.string_val[0]
    rates = [v.simple_value for e in events for v in e.summary.value if "second" in v.tag]
    assert all(rate > 0 for rate in rates), rates


def read_events(folder: Path):
    """TensorBoard's records: length, checksum, event, checksum."""
    (path,) = folder.glob("events*")
    data, start = path.read_bytes(), 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        yield event_pb2.Event.FromString(data[start + 12 : start + 12 + length])
        start += 16 + length


def test_a_full_disk_under_tensorboard_is_a_warning_and_changes_no_weight(uninterrupted, tmp_path):
    done = train(tmp_path, "--full_tensorboard", timeout=40).check()
    warnings = [line for line in done.output.splitlines() if "TensorBoard" in line]
    assert len(warnings) == 1 and "No space left on device" in warnings[0], warnings
    assert "Traceback" not in done.output and "Exception ignored" not in done.output, done.output
    assert_identical(weights(tmp_path), weights(uninterrupted))


def test_a_folder_that_tensorboard_cannot_write_to_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    summary = Summary(tmp_path / "file", 3, {"seed": 0})
    summary.add(4, {"loss": 1.0})
    summary.add_picture(4, "train", np.zeros((8, 8, 3), np.uint8))
    summary.close()
    assert len(caplog.records) == 1 and "Not a directory" in caplog.text, caplog.text


def test_a_loss_that_is_not_finite_stops_with_step_and_every_term(tmp_path):
    done = train(tmp_path, "--nan_at", 7)
    assert done.returncodes != (0,)
    assert "not finite at step 6: first nan, second 0." in done.output, done.output[-500:]


@pytest.mark.parametrize(
    ("arguments", "processes", "message"),
    [
        ((), 2, "was written by 1 processes"),
        (("--ema", 0.9), 1, "was trained without --ema"),
        (("--seed", 3), 1, "was trained with seed 0, but now it is 3"),
        (("--backbone_lr", 0.1), 1, "was trained with --backbone_lr 1, but now it is 0.1"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    arguments, processes, message, uninterrupted, tmp_path
):
    (tmp_path / "checkpoints").mkdir()
    source = uninterrupted / "checkpoints" / "last.pt"
    (tmp_path / "checkpoints" / "last.pt").write_bytes(source.read_bytes())
    done = train(tmp_path, "--resume", *arguments, processes=processes)
    assert all(done.returncodes) and message in done.output, done


def test_a_finished_run_is_left_as_it_is(uninterrupted):
    before = (uninterrupted / "checkpoints" / "last.pt").stat()
    done = train(uninterrupted, "--resume").check()
    assert "has its 6 epochs already" in done.output
    assert (uninterrupted / "checkpoints" / "last.pt").stat() == before


def test_skipped_samples_are_counted_epoch_by_epoch(tmp_path):
    done = train(tmp_path, "--num_bad", 2, processes=2).check()
    lines = [line for line in done.outputs[0].splitlines() if "skipped" in line]
    assert lines[0] == "epoch 000: 4 bad samples were skipped.", "2 in each of 2 processes"
    assert len(lines) == 6


def test_several_names_of_one_checkpoint_are_written_once(tmp_path):
    paths = [tmp_path / name for name in ("last.pt", "epoch_000.pt", "best.pt")]
    save_atomically({"a": torch.ones(3)}, *paths)
    assert len({path.stat().st_ino for path in paths}) == 1
    save_atomically({"a": torch.zeros(3)}, paths[0])
    values = [load_checkpoint(path)["a"].sum().item() for path in paths]
    assert values == [0, 3, 3], "writing one name leaves the others as they were"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}


def test_without_links_checkpoints_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    paths = [tmp_path / name for name in ("last.pt", "epoch_000.pt")]
    save_atomically({"a": torch.ones(3)}, *paths)
    assert all(load_checkpoint(path)["a"].sum() == 3 for path in paths)
    assert len(list(tmp_path.iterdir())) == 2


def test_every_process_sees_its_own_samples_and_each_batch_once():
    samplers = [TrainSampler(43, 3, Processes(rank, 4, CPU), seed=5) for rank in range(4)]
    epochs = []
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_position(epoch)
        batches = [list(sampler) for sampler in samplers]
        seen = [index for process in batches for batch in process for index in batch]
        assert len(seen) == len(set(seen)) == 36  # the last incomplete batch is dropped
        assert all(len(batch) == 3 for process in batches for batch in process)
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    samplers[2].set_position(1, first_batch=2)
    assert list(samplers[2]) == epochs[1][2][2:]


def test_too_few_samples_for_a_batch_are_named():
    with pytest.raises(ValueError, match="5 training samples.*batch of 3 on 2 processes"):
        TrainSampler(5, 3, Processes(0, 2, CPU), seed=0)


def test_learning_rate_warms_up_and_falls_to_zero():
    constant = Schedule(tiny_options(lr=2e-4), 100)
    assert {constant.learning_rate(step) for step in (0, 50, 99)} == {2e-4}
    cosine = Schedule(tiny_options(lr=1.0, lr_schedule="cosine", warmup_steps=9), 1000)
    rates = [cosine.learning_rate(step) for step in range(1000)]
    assert abs(rates[0] - 0.1) < 1e-3 and rates[999] < 1e-4
    assert max(rates) == rates[9] and abs(rates[500] - 0.5) < 1e-3


def test_the_backbone_can_learn_more_slowly():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    (together,) = parameter_groups(model, 1.0)
    assert len(together["params"]) == 4
    rest, backbone = parameter_groups(model, 0.2)
    assert [rest["factor"], backbone["factor"]] == [1.0, 0.2]
    assert {id(p) for p in backbone["params"]} == {id(p) for p in model["backbone"].parameters()}
    assert len(rest["params"]) == 2


def test_an_evaluation_that_failed_is_made_up_for(tmp_path):
    done = train(tmp_path, "--evaluation", "fails")
    assert set(done.returncodes) == {1} and "no evaluation today" in done.output
    state = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert (state["finished_epochs"], state["global_iter"]) == (1, 10)
    assert not (tmp_path / "checkpoints" / "best.pt").exists()
    again = train(tmp_path, "--evaluation", "works", "--resume").check()
    measured = [line for line in again.output.splitlines() if line == "epoch 000"]
    assert measured, "the first epoch was never evaluated"
    whole = tmp_path / "whole"
    train(whole, "--evaluation", "works").check()
    for folder in (tmp_path, whole):
        names = sorted(path.name for path in (folder / "evaluations").glob("*.json"))
        assert names == [f"epoch_{number:03d}.json" for number in range(6)]
    for name in ("last.pt", "best.pt"):
        assert_identical(weights(tmp_path, name), weights(whole, name))


def test_a_run_that_only_owes_its_last_evaluation_makes_it(uninterrupted, tmp_path):
    state = load_checkpoint(uninterrupted / "checkpoints" / "last.pt") | {"owes_evaluation": True}
    (tmp_path / "checkpoints").mkdir()
    save_atomically(state, tmp_path / "checkpoints" / "last.pt")
    train(tmp_path, "--evaluation", "works", "--resume").check()
    assert_identical(weights(tmp_path, "best.pt"), weights(uninterrupted))


def test_an_average_leaves_whole_numbers_alone():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("parents", torch.arange(-1, 30))
    average = WeightAverage(model, 0.9)
    before = model.weight.detach().clone()
    for _ in range(3):
        average.update(model)
        with torch.no_grad():
            model.weight.add_(1)
        model.parents += 1
    expected = before + 0.1 * 0.9 + 0.1 * 2
    assert torch.allclose(average.module.weight, expected, atol=1e-6)
    assert torch.equal(average.module.parents, torch.arange(1, 32)), "of the last update"
    assert not average.module.weight.requires_grad
