"""Export a model to a file that runs without this code: python -m scripts.export_onnx.

`smpler.onnx` runs in ONNX Runtime, OpenVINO or TensorRT without torch; `--format torch` writes a
torch.export program. Both take any number of crops at once.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smpler.models.inference.onnx import import_onnx_runtime
from smpler.models.inference.optimize import fold_batch_norms
from smpler.models.smpl import Estimate
from smpler.models.smpler import IMAGE_SIZE, PRESETS, SMPLer
from smpler.models.weights.checkpoint import load_model
from smpler.utils.flags import Parser, input_file, output_file, program, weights_file
from smpler.utils.paths import display, prepare_file

INPUT = "images"
OUTPUTS = ("cam", "rotmat", "betas", "vertices", "joints")
"""Camera, pose, shape, mesh, SMPL's joints: fields of the last `smpler.models.smpl.Estimate`."""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-3
"""Largest difference of any number from the model's own."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the file and compare it with the model; return 0, or 2 with one sentence."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--checkpoint",
        type=weights_file,
        help="published or ours; default: the open weights",
    )
    add("--preset", choices=list(PRESETS), help="which model; default: what the weights are")
    add("--body", type=input_file, help="SMPL's .pkl or .npz; default as in the demo")
    add("--format", choices=list(SUFFIXES), default="onnx", help="ONNX, or torch.export's program")
    add("--out", type=output_file, help="default: smpler.onnx or smpler.pt2")
    arguments = parser.parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"Note: {message}", file=sys.stderr)
    out = arguments.out or Path("smpler").with_suffix(SUFFIXES[arguments.format])
    prepare_file(out)
    with warnings.catch_warnings():
        # of the exporter's own code, which users cannot change
        warnings.filterwarnings("ignore", module="torch|onnx|copyreg")
        model = load_model(arguments.preset, arguments.checkpoint, arguments.body)
        error = export(model, out, arguments.format)
    print(f"{display(out)}: {out.stat().st_size / 1e6:.1f} MB, within {error:.1e} of the model")
    return 0


class ExportedSMPLer(nn.Module):
    """The last estimate as a flat tuple, in the order of `OUTPUTS`."""

    def __init__(self, model: SMPLer):
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b 3 224 224"]) -> tuple[Tensor, ...]:
        """Estimate the person in each crop, RGB in [0, 1]."""
        estimate = self.model(images)[-1]
        return tuple(getattr(estimate, name) for name in OUTPUTS)


def export(model: SMPLer, out: Path, format: str) -> float:
    """Write a model; it cannot be trained afterwards, as batch norm is folded into it.

    Args:
        model: on the CPU, in eval mode.
        out: the file.
        format: a name in `SUFFIXES`.

    Returns:
        The largest difference of the file's numbers from the model's, on two noise images.

    Raises:
        ImportError: ONNX's packages are not installed.
        RuntimeError: the difference is above `TOLERANCE`.
    """
    if format == "onnx":
        import_onnx_runtime()
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)[-1]
    fold_batch_norms(model.requires_grad_(False).backbone)
    program = torch.export.export(
        ExportedSMPLer(model),
        (images,),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    part = out.with_name(f"{out.stem}.{os.getpid()}.part{out.suffix}")
    try:
        if format == "onnx":
            write_onnx(program, part)
            found = run_onnx(part, images)
        else:
            torch.export.save(program, part)
            found = program.module()(images)
        error = check(expected, found, out)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return error


def check(expected: Estimate, found: Sequence[Tensor], out: Path) -> float:
    """Return the largest difference of a file's answer from the model's.

    Raises:
        RuntimeError: it is above `TOLERANCE`.
    """
    errors = [
        (getattr(expected, name) - value).abs().max()
        for name, value in zip(OUTPUTS, found, strict=True)
    ]
    error = torch.stack(errors).max().item()  # not Python's max, which passes over nan
    if not error < TOLERANCE:
        raise RuntimeError(f"{out} differs from the model by {error:.2g}; it is not written.")
    return error


def write_onnx(program: torch.export.ExportedProgram, out: Path) -> None:
    """Write a program as one ONNX file, weights inside."""
    converted = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamo=True,
        optimize=False,  # takes minutes; the runtime does it in seconds when it loads the file
        verbose=False,
    )
    converted.save(out, external_data=False)


def run_onnx(path: Path, images: Float[Tensor, "b 3 224 224"]) -> list[Tensor]:
    """Return what the file answers, in the order of `OUTPUTS`."""
    onnxruntime = import_onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no warnings of what it cannot fold into constants
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return [torch.from_numpy(x) for x in session.run(list(OUTPUTS), {INPUT: images.numpy()})]


if __name__ == "__main__":
    sys.exit(main())
