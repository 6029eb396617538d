"""Every command line of the README runs, or is run by the test that is named here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smpler.utils.image import read_image
from smpler.utils.paths import ROOT, SAMPLES
from smpler.video.drawing import encode
from tests.support import standin

README = (ROOT / "README.md").read_text()
TRAINING = "python -m torch.distributed.launch"
ELSEWHERE = {
    "make demo": ".ci/run",
    "pip install av": "requirements-test.txt",
    "source .venv/bin/activate": "nothing of ours runs",
    "pip install .": "tests/test_packaging.py",
    "smpler photo.jpg": "tests/test_packaging.py",
    "smpler doctor": "tests/test_packaging.py",
    "python main.py --data_mode=open --model_type=smpler": "tests/training/test_open_training.py",
}
"""Command -> who runs it."""
IN_TEXT = re.compile(r"`((?:python|make|pip|smpler|scripts/)[^`\n]*)`")


def shell_lines() -> list[str]:
    """Return the commands of the README's blocks and sentences, without their comments."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if not language]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    lines = [
        line for line in lines if re.match(r"(python|make|pip|smpler|source|scripts/)\b", line)
    ]
    return [*lines, *IN_TEXT.findall(README)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder that looks like a checkout with a photo and an official checkpoint in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in ("pretrained", "outputs", "logs") and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "pretrained", folder / "pretrained")
    shutil.copy(SAMPLES / "im01.png", folder / "photo.jpg")
    with open(folder / "clip.mp4", "wb") as file:
        encode([read_image(SAMPLES / "im01.png")] * 3, 6.0, file)
    state = standin.published_state_dict("smpler", "w32")
    state |= standin.published_body(standin.body(), standin.keypoint_regressor("h36m"))
    torch.save({"model": state}, folder / "pretrained" / "SMPLer_h36m.pt")
    return folder


@pytest.mark.parametrize("line", [x for x in shell_lines() if x.startswith("python demo.py ")])
def test_the_demos_lines_run_as_they_are_written(line, checkout, tmp_path):
    command = [sys.executable, *line.split()[1:], "--out_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    name, result = ("clip.mp4", "clip.glb") if "clip" in line else ("photo.jpg", "photo_0.npz")
    assert f"{name}: 1 person" in done.stdout and (tmp_path / result).is_file()


def test_the_training_script_runs_the_published_stages(tmp_path):
    """A stand-in for Python writes down what it is called with."""
    calls, python = tmp_path / "calls", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python)}
    subprocess.run(["scripts/train_smpler.sh"], cwd=ROOT, env=environment, check=True)
    published = [x for x in shell_lines() if x.startswith(TRAINING) and "--eval_only" not in x]
    called = [set(re.findall(r"--\w+=\S+", line)) for line in calls.read_text().splitlines()]
    assert len(called) == len(published) == 3
    for flags, line in zip(called, published, strict=True):
        expected = set(re.findall(r"--\w+=\S+", line))
        differ = {flag.split("=")[0] for flag in flags ^ expected}
        assert differ <= {"--auto_load", "--load_checkpoint"}, differ


def test_every_command_is_run_by_some_test():
    def is_run(line: str) -> bool:
        if line.startswith(("python demo.py ", TRAINING, "scripts/train_smpler.sh")):
            return True  # above, or by tests/test_published_commands.py
        return any(line.startswith(known) for known in ELSEWHERE)

    others = [line for line in shell_lines() if not is_run(line)]
    allowed = {"python main.py", "python -m venv .venv", "pip install -r requirements.txt"}
    assert set(others) <= allowed, others
