import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts import export_onnx
from scripts.export_onnx import OUTPUTS
from smpler.utils.paths import ROOT
from tests.support.tiny_model import tiny_model

WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None  # importing it would fail
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
names = [x.name for x in session.get_outputs()]
for size in (1, 5):
    answers = session.run(None, {"images": images[:size]})
    np.savez(f"{sys.argv[3]}/{size}.npz", **dict(zip(names, answers)))
print(json.dumps([session.get_inputs()[0].shape[1:], names, "torch" in vars()]))
"""


def noise(size: int) -> torch.Tensor:
    return torch.rand(size, 3, 224, 224, generator=torch.Generator().manual_seed(3))


def largest_error(estimate, found: dict, size: int) -> float:
    return max(
        float(np.abs(getattr(estimate, name)[:size].numpy() - found[name]).max())
        for name in OUTPUTS
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model's own answer, and the folder of its ONNX file."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        model = tiny_model(patch, num_blocks=1)
        with torch.no_grad():
            expected = model(noise(5))[-1]
        error = export_onnx.export(model, folder / "model.onnx", "onnx")
    assert error < 1e-4, error
    return expected, folder


def test_onnx_file_runs_without_torch_for_any_batch(exported, tmp_path):
    expected, folder = exported
    np.save(tmp_path / "images.npy", noise(5).numpy())
    given = [str(folder / "model.onnx"), str(tmp_path / "images.npy"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *given], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[3, 224, 224], list(OUTPUTS), False]
    for size in (1, 5):
        error = largest_error(expected, np.load(tmp_path / f"{size}.npz"), size)
        assert error < 1e-4, (size, error)


def test_onnx_is_one_file(exported):
    _, folder = exported
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("num_blocks", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_program_gives_the_models_numbers_for_any_batch(num_blocks, monkeypatch, tmp_path):
    model = tiny_model(monkeypatch, num_blocks)
    with torch.no_grad():
        expected = model(noise(5))[-1]
    assert export_onnx.export(model, tmp_path / "model.pt2", "torch") < 1e-4
    program = torch.export.load(tmp_path / "model.pt2").module()
    for size in (1, 5):
        with torch.no_grad():
            answers = [value.numpy() for value in program(noise(5)[:size])]
        error = largest_error(expected, dict(zip(OUTPUTS, answers, strict=True)), size)
        assert error < 1e-4, (size, error)


def test_a_file_with_other_numbers_is_reported(monkeypatch):
    with torch.no_grad():
        estimate = tiny_model(monkeypatch, num_blocks=0)(noise(1))[-1]
    found = [getattr(estimate, name).clone() for name in OUTPUTS]
    assert export_onnx.check(estimate, found, Path("a.onnx")) == 0
    found[-1][0, -1] += 0.01
    with pytest.raises(RuntimeError, match="a.onnx differs from the model by 0.01"):
        export_onnx.check(estimate, found, Path("a.onnx"))
    found[-1][0, -1] = torch.nan
    with pytest.raises(RuntimeError, match="by nan"):
        export_onnx.check(estimate, found, Path("a.onnx"))


def test_a_missing_checkpoint_is_one_sentence(tmp_path, capsys):
    assert export_onnx.main(["--checkpoint", str(tmp_path / "no.pt")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "no.pt" in error and error.count("\n") == 1


def test_missing_packages_are_named_before_anything_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(export_onnx, "load_model", lambda *_: tiny_model(monkeypatch, 0))
    out = tmp_path / "new" / "model.onnx"
    assert export_onnx.main(["--out", str(out)]) == 2
    assert "onnxscript is missing: pip install" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


@pytest.mark.slow
@pytest.mark.first
@pytest.mark.parametrize("preset", ["smpler", "smpler-lite-backbone"])
def test_whole_models_are_exported_by_the_command(preset, tmp_path):
    command = [sys.executable, "-m", "scripts.export_onnx", "--preset", preset]
    command += ["--checkpoint", "init"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "model.onnx")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "model.onnx" in done.stdout and "of the model" in done.stdout
