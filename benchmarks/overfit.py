"""Fit a few samples without augmentation: python -m benchmarks.overfit.

Trains SMPLer on 8 samples of toy data and measures the same 8 in eval mode. Anything but a small
error means a broken gradient, loss or label.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import default_collate

from benchmarks.harness import write
from scripts.make_toy_data import write_all
from smpler.datasets.human_mesh import HumanMesh
from smpler.models.body import open_body
from smpler.models.losses import SMPLLoss
from smpler.models.smpler import PRESETS, build_smpler
from smpler.training.engine import Precision, evaluate, summarise, to_device
from smpler.utils.flags import Parser, above_zero, device_name, output_file, positive, program


@program
def main(argv: list[str] | None = None) -> int:
    """Print the error every few steps, and write one JSON object."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_name, default="cpu")
    parser.add_argument("--preset", choices=list(PRESETS), default="smpler")
    parser.add_argument("--steps", type=positive, default=200)
    parser.add_argument("--lr", type=above_zero, default=2e-4)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", type=output_file, help="file for the numbers")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    precision = Precision(device, arguments.bf16)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), num=8)
        data = HumanMesh(Path(folder) / "3dpw/train.yaml", training=False)
        batch = to_device(default_collate([data[index] for index in range(8)]), device)
    model = build_smpler(PRESETS[arguments.preset], open_body()).to(device)
    criterion = SMPLLoss(model.smpl)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.lr)
    curve, start = [], time.time()
    for step in range(1, arguments.steps + 1):
        model.train()
        for group in optimizer.param_groups:  # in the last quarter it falls to 0
            group["lr"] = arguments.lr * min(1, 4 * (1 - (step - 1) / arguments.steps))
        with precision.autocast():
            estimate = model(batch["image"])[-1]
        loss = sum(criterion(estimate, batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == arguments.steps:
            summary = summarise(evaluate(model, model.smpl, [batch], precision))
            values = {name: value["mean_mm"] for name, value in summary.items()}
            curve.append({"step": step, "loss": loss.item(), **values})
            numbers = "  ".join(f"{name} {value:6.1f} mm" for name, value in values.items())
            seconds = time.time() - start
            print(
                f"step {step:4d}  loss {loss.item():7.2f}  {numbers}  {seconds:.0f} s", flush=True
            )
    write(arguments.json, {"curve": curve, "final": curve[-1]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
