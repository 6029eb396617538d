"""The published command lines, through the real launchers, end to end on toy data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.make_toy_data import write_all
from smpler.models.weights.checkpoint import read_checkpoint
from smpler.utils.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.first]

NUM_SAMPLES = 5  # of each toy set: neither 2 nor 3 divides it
LAUNCH = "python -m torch.distributed.launch --nproc_per_node={processes} --use_env main.py "
STAGE_1 = (
    "--exp_name=backbone --batch_size=100 --num_workers=8 --lr=2e-4 --data_mode=h36m "
    "--model_type=backbone --num_epochs=50 --hrnet_type=w32"
)
STAGE_2 = (
    "--exp_name=smpler --batch_size=100 --num_workers=8 --lr=2e-4 --data_mode=h36m "
    "--model_type=smpler --num_epochs=100 --hrnet_type=w32 "
    "--load_checkpoint={logs}/backbone/checkpoints/epoch_000.pt"
)
STAGE_3 = (
    "--exp_name=smpler_3dpw --batch_size=32 --num_workers=8 --lr=1e-4 --data_mode=3dpw "
    "--model_type=smpler --num_epochs=1 --hrnet_type=w32 "
    "--load_checkpoint={logs}/smpler/checkpoints/epoch_000.pt --summary_steps=100"
)
EVALUATE = (
    "--eval_only --val_batch_size=128 --model_type=smpler --data_mode={mode} --hrnet_type=w32 "
    "--load_checkpoint={logs}/{name}/checkpoints/epoch_000.pt"
)
SMALL = "--device=cpu --log_root={logs} --num_workers=1"
"""Flags that come after the published ones, and take their place."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_all(folder, num=NUM_SAMPLES)
    return folder


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("logs")


def command(line: str) -> list[str]:
    return [sys.executable, *line.split()[1:]]


def start(toy: Path, line: str) -> str:
    """Run a command line; return what it printed."""
    done = subprocess.run(
        command(line),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment(toy),
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr[-3000:])
    return done.stdout


def environment(toy: Path) -> dict[str, str]:
    """One thread for each process: two threads that share a core wait for each other, spinning."""
    port = str(20_000 + os.getpid() % 9000)
    return os.environ | {
        "SMPLER_DATASETS": str(toy),
        "OMP_NUM_THREADS": "1",
        "PET_MASTER_PORT": port,
    }


@pytest.fixture(scope="module")
def stages(toy, logs) -> dict[str, str]:
    """Stages 1 and 2 on two gloo processes, 3 on one, as published; what they printed."""
    printed = {}
    for name, flags, processes in (
        ("backbone", STAGE_1, 2),
        ("smpler", STAGE_2, 2),
        ("smpler_3dpw", STAGE_3, 1),
    ):
        line = f"{LAUNCH}{flags} {SMALL} --batch_size=2 --num_epochs=1 --summary_steps=2"
        printed[name] = start(toy, line.format(processes=processes, logs=logs))
    return printed


def test_the_three_stages_run_and_say_what_is_not_licensed(stages, logs):
    for name, printed in stages.items():
        assert printed.count("Body: the open body") == 1, printed
        names = {path.name for path in (logs / name / "checkpoints").iterdir()}
        assert names == {"epoch_000.pt", "best.pt", "last.pt"}
        config = json.loads((logs / name / "config.json").read_text())
        assert config["body"]["name"] == "open"
        assert config["start"].endswith("HRNet from initialisation")
        result = json.loads((logs / name / "evaluations" / "epoch_000.json").read_text())
        assert result["setting"]["body"] == "open" and not result["setting"]["comparable"]
        assert result["setting"]["start"].endswith("HRNet from initialisation")
        assert result["metrics"]["mpjpe"]["samples"] == NUM_SAMPLES
    assert "HRNet from initialisation" in stages["backbone"]
    checkpoint = read_checkpoint(logs / "smpler" / "checkpoints" / "epoch_000.pt")
    assert checkpoint.config.num_blocks == 3 and not checkpoint.is_published


@pytest.fixture(scope="module")
def evaluations(stages, toy, logs) -> dict[str, str]:
    """The published evaluation of either data mode on two processes; what it printed."""
    return {
        mode: start(
            toy,
            f"{LAUNCH}{EVALUATE} {SMALL} --exp_name=on2".format(
                processes=2, logs=logs, mode=mode, name=name
            ),
        )
        for mode, name in (("h36m", "smpler"), ("3dpw", "smpler_3dpw"))
    }


@pytest.mark.parametrize("mode", ["h36m", "3dpw"])
def test_evaluation_prints_the_published_lines(mode, evaluations):
    printed = evaluations[mode]
    assert ("mpve: " in printed) == (mode == "3dpw"), printed
    assert "mpjpe: " in printed and "mpjpe-pa: " in printed
    assert "HRNet from initialisation" in printed and "body=open" in printed


def test_one_two_and_three_processes_give_the_same_metrics(evaluations, toy, logs):
    """On a set whose size neither 2 nor 3 divides; the published launcher and torchrun.

    In batches of 128, 2 and 1: of the three processes, one has fewer batches than the others.
    """
    torchrun = "python -m torch.distributed.run --nproc_per_node=3 main.py "
    for processes, launcher, size in ((1, "python main.py ", 2), (3, torchrun, 1)):
        line = f"{launcher}{EVALUATE} {SMALL} --val_batch_size={size} --exp_name=on{processes}"
        start(toy, line.format(logs=logs, mode="3dpw", name="smpler_3dpw"))
    one, *others = (dict(np.load(logs / f"on{n}" / "eval_3dpw.npz")) for n in (1, 2, 3))
    for other in others:
        assert other["index"].tolist() == list(range(NUM_SAMPLES))
        for name in ("mpve", "mpjpe", "mpjpe-pa"):
            difference = np.abs(other[name] - one[name]).max()
            assert difference < 1e-6, (name, difference)
