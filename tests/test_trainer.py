import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.checkpoint import load_checkpoint
from utils.distributed import Processes, TrainSampler
from utils.paths import ROOT
from utils.trainer import TrainOptions

CPU = torch.device("cpu")


def train(folder: Path, *arguments, processes: int = 1) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        port = 20_000 + os.getpid() % 20_000
        launcher += ["torch.distributed.run", f"--nproc_per_node={processes}"]
        launcher += [f"--master_port={port}", "-m"]
    command = [*launcher, "tests.tiny_training", folder, *arguments]
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


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
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("kill_at", "workers"),
    [(30, 0), (34, 0), (36, 0), (34, 2)],
    ids=["epoch's end", "mid-epoch, between saves", "mid-epoch, at a save", "2 workers"],
)
def test_resume_equals_uninterrupted_training(kill_at, workers, uninterrupted, tmp_path):
    died = train(tmp_path, "--kill_at", kill_at, "--num_workers", workers)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["global_iter"] < 60
    continued = train(tmp_path, "--resume", "--num_workers", workers)
    assert continued.returncode == 0, continued.stderr
    assert_identical(weights(tmp_path), weights(uninterrupted))


def test_resume_on_two_processes_equals_uninterrupted_training(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(whole, processes=2).returncode == 0
    assert train(cut, "--kill_at", 34, processes=2).returncode != 0
    continued = train(cut, "--resume", processes=2)
    assert continued.returncode == 0, continued.stderr
    assert_identical(weights(cut), weights(whole))


def test_averaged_weights_are_continued_too(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(whole, "--ema", 0.9).returncode == 0
    train(cut, "--ema", 0.9, "--kill_at", 34)
    assert train(cut, "--ema", 0.9, "--resume").returncode == 0
    assert_identical(weights(cut), weights(whole))
    state = load_checkpoint(whole / "checkpoints" / "last.pt")
    assert not torch.equal(state["model"]["layers.0.weight"], state["trained"]["layers.0.weight"])


def test_a_crash_while_saving_leaves_the_checkpoint_before(uninterrupted, tmp_path):
    died = train(tmp_path, "--kill_while_saving", 4)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["global_iter"] > 0
    continued = train(tmp_path, "--resume")
    assert continued.returncode == 0, continued.stderr
    assert_identical(weights(tmp_path), weights(uninterrupted))


def test_checkpoints_carry_the_published_names(uninterrupted):
    names = {path.name for path in (uninterrupted / "checkpoints").iterdir()}
    assert names == {"epoch_001.pt", "epoch_003.pt", "epoch_005.pt", "last.pt"}
    state = load_checkpoint(uninterrupted / "checkpoints" / "epoch_003.pt")
    assert (state["epoch"], state["global_iter"]) == (3, 40)
    assert any(path.name.startswith("events") for path in uninterrupted.iterdir())


def test_a_loss_that_is_not_finite_stops_with_step_and_every_term(tmp_path):
    done = train(tmp_path, "--nan_at", 7)
    assert done.returncode != 0
    assert "not finite at step 6: first nan, second 0." in done.stderr, done.stderr[-500:]


def test_resuming_with_another_number_of_processes_is_refused(uninterrupted, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    source = uninterrupted / "checkpoints" / "last.pt"
    (tmp_path / "checkpoints" / "last.pt").write_bytes(source.read_bytes())
    done = train(tmp_path, "--resume", processes=2)
    assert done.returncode != 0 and "was written by 1 processes" in done.stderr


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
    constant = TrainOptions(lr=2e-4)
    assert {constant.learning_rate(step, 100) for step in (0, 50, 99)} == {2e-4}
    cosine = TrainOptions(lr=1.0, lr_schedule="cosine", warmup_steps=9)
    rates = [cosine.learning_rate(step, 1000) for step in range(1000)]
    assert abs(rates[0] - 0.1) < 1e-3 and rates[999] < 1e-4
    assert max(rates) == rates[9] and abs(rates[500] - 0.5) < 1e-3
