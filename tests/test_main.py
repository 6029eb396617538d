import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.pretrained import read_checkpoint
from scripts.make_toy_data import write_all
from utils.checkpoint import load_checkpoint
from utils.paths import ROOT

NUM_SAMPLES = 5  # of each toy set: neither 2 nor 3 divides it


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_all(folder, num=NUM_SAMPLES)
    return folder


def run(toy: Path, logs: Path, *flags: str, processes: int = 1, launcher: str = "launch"):
    """Run main.py as a user does; with `launch`, by the published command line."""
    command = [sys.executable, "main.py"]
    if processes > 1:
        command = [sys.executable, "-m", f"torch.distributed.{launcher}"]
        command += [f"--nproc_per_node={processes}", f"--master_port={20_000 + os.getpid() % 9000}"]
        command += ["--use_env"] * (launcher == "launch") + ["main.py"]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    done = subprocess.run(
        [*command, *flags, "--device=cpu", f"--log_root={logs}", "--num_workers=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"SMPLER_DATASETS": str(toy), "OMP_NUM_THREADS": threads},
    )
    return done


def metrics(logs: Path, name: str, protocol: str) -> dict[str, np.ndarray]:
    return dict(np.load(logs / name / f"eval_{protocol}.npz"))


EVALUATE = ("--eval_only", "--val_batch_size=2", "--model_type=backbone", "--data_mode=3dpw")


def test_evaluation_on_one_and_two_processes_is_the_same(toy, tmp_path):
    for processes in (1, 2):
        done = run(toy, tmp_path, *EVALUATE, f"--exp_name=on{processes}", processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
        for name in ("mpve: ", "mpjpe: ", "mpjpe-pa: "):
            line = next(line for line in done.stdout.splitlines() if line.startswith(name))
            assert len(line.split(".")[-1]) == 3, line
        assert "body=open" in done.stdout and "comparable=False" in done.stdout
    one, two = (metrics(tmp_path, f"on{processes}", "3dpw") for processes in (1, 2))
    assert one["index"].tolist() == two["index"].tolist() == list(range(NUM_SAMPLES))
    for name in one:
        error = np.abs(one[name] - two[name]).max()
        assert error < 1e-6, (name, error)
    result = json.loads((tmp_path / "on1" / "eval_3dpw.json").read_text())
    assert result["metrics"]["mpve"]["samples"] == NUM_SAMPLES
    assert "METRO" in result["protocol"]["rule"] and len(result["setting"]["body_sha256"]) == 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--load_checkpoint=nowhere.pt", "--eval_only"), "nowhere.pt is missing"),
        (("--batch_size=1000",), "do not fill one batch of 1000"),
        (("--gendered", "--data_mode=3dpw", "--eval_only"), "SMPL_MALE.pkl is missing"),
    ],
)
def test_mistakes_give_one_sentence_and_exit_code_2(flags, message, toy, tmp_path):
    done = run(toy, tmp_path, *flags)
    assert done.returncode == 2, done.stderr[-2000:]
    errors = [line for line in done.stdout.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0], done.stdout
    assert "Traceback" not in done.stderr


def test_missing_data_is_one_sentence_that_names_the_readme(tmp_path):
    done = run(tmp_path / "nowhere", tmp_path, "--eval_only")
    assert done.returncode == 2, done.stderr[-2000:]
    assert "valid.protocol2.yaml is missing" in done.stdout


@pytest.mark.slow
def test_the_published_command_lines_run_end_to_end(toy, tmp_path):
    """Stages 1, 2, 3 and both evaluations on 2 gloo processes; small batch and epochs."""
    common = ("--batch_size=2", "--lr=2e-4", "--num_epochs=1", "--hrnet_type=w32")
    stages = (
        ("backbone", "h36m", "backbone", None, 2),
        ("smpler", "h36m", "smpler", "backbone", 2),
        ("smpler_3dpw", "3dpw", "smpler", "smpler", 1),
    )
    for name, data_mode, model_type, source, processes in stages:
        flags = [f"--exp_name={name}", f"--data_mode={data_mode}", f"--model_type={model_type}"]
        flags += [*common, "--summary_steps=1"]
        if source:
            flags.append(f"--load_checkpoint={tmp_path}/{source}/checkpoints/epoch_000.pt")
        done = run(toy, tmp_path, *flags, processes=processes)
        assert done.returncode == 0, (name, done.stdout, done.stderr[-3000:])
        assert "open body" in done.stdout
        names = {path.name for path in (tmp_path / name / "checkpoints").iterdir()}
        assert names == {"epoch_000.pt", "best.pt", "last.pt"}
        assert json.loads((tmp_path / name / "config.json").read_text())["body"]["name"] == "open"
    for data_mode, name in (("h36m", "smpler"), ("3dpw", "smpler_3dpw")):
        done = run(
            toy,
            tmp_path,
            "--eval_only",
            "--val_batch_size=128",
            "--model_type=smpler",
            f"--data_mode={data_mode}",
            "--hrnet_type=w32",
            f"--exp_name=eval_{data_mode}",
            f"--load_checkpoint={tmp_path}/{name}/checkpoints/epoch_000.pt",
            processes=2,
        )
        assert done.returncode == 0, (data_mode, done.stdout, done.stderr[-3000:])
        assert ("mpve: " in done.stdout) == (data_mode == "3dpw"), done.stdout
        assert "mpjpe: " in done.stdout and "mpjpe-pa: " in done.stdout
    checkpoint = read_checkpoint(tmp_path / "smpler" / "checkpoints" / "epoch_000.pt")
    assert checkpoint.config.num_blocks == 3 and not checkpoint.is_published
    assert len(checkpoint.body_sha256) == 64


@pytest.mark.slow
def test_a_real_run_continues_exactly_also_with_every_option(toy, tmp_path):
    """One epoch, then a second one by --auto_load, equals two epochs in one go."""
    flags = ("--model_type=backbone", "--data_mode=3dpw", "--batch_size=2", "--save_steps=1")
    options = ("--bf16", "--channels_last", "--ema=0.9", "--clip_grad=10", "--warmup_steps=2")
    whole = run(toy, tmp_path, *flags, *options, "--exp_name=whole", "--num_epochs=2")
    assert whole.returncode == 0, whole.stderr[-3000:]
    for epochs in (1, 2):
        done = run(
            toy, tmp_path, *flags, *options, "--exp_name=cut", f"--num_epochs={epochs}",
            "--auto_load=1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    first, second = (
        load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "cut")
    )
    for part in ("model", "trained"):
        for name, value in first[part].items():
            assert value.equal(second[part][name]), (part, name)
