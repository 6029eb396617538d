"""What each stage of SMPLer gains: python -m benchmarks.stages CHECKPOINT...

Errors of every stage's estimate on the first people of the validation set open/1. Checkpoints of
one training with a frozen backbone (`main.py --cache_features`) take turns on the same features, so
that their order is the course of the training; `elapsed_s` says when each was written.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.harness import parse, write
from smpler.datasets.engine.stream import VALIDATION_SIZE, validation_set
from smpler.models.body import open_body
from smpler.models.smpler import SMPLer, build_smpler
from smpler.models.weights.checkpoint import load_weights, read_checkpoint
from smpler.models.weights.files import read_tensors
from smpler.training.engine import measure
from smpler.training.features import EncodedCrops, encode_crops, reading
from smpler.utils.flags import (
    Parser,
    device_name,
    input_file,
    output_file,
    positive,
    program,
)

SHOWN = ("mpjpe", "mpjpe-pa")


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the numbers."""
    arguments = parse_arguments(argv)
    rows = measure_all(arguments)
    print(f"{'':32}{'steps':>8}{'minutes':>9}  MPJPE of each stage; PA-MPJPE, mm")
    for row in rows:
        minutes = "" if row["elapsed_s"] is None else f"{row['elapsed_s'] / 60:.1f}"
        numbers = "; ".join(" ".join(f"{x:6.1f}" for x in row[name]) for name in SHOWN)
        print(f"{Path(row['checkpoint']).name:32}{row['steps'] or '':>8}{minutes:>9}  {numbers}")
    write(arguments.json, {"num": arguments.num, "rows": rows})
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    help = "of one training, such as logs/X/checkpoints/*.pt"
    add("checkpoints", type=input_file, nargs="+", help=help)
    add("--num", type=positive, default=512, help=f"people; at most {VALIDATION_SIZE}")
    add("--num_workers", type=positive, default=2, help="processes that render them")
    add("--device", type=device_name, default="cpu", help="cpu, cuda or cuda:1")
    add("--json", type=output_file, help="file for the numbers")
    return parse(parser, argv)


def measure_all(arguments: argparse.Namespace) -> list[dict]:
    """Return the errors of every stage of every checkpoint, millimetres.

    Raises:
        OSError, ValueError: a checkpoint cannot be used, or has another backbone than the first.
    """
    device, count = torch.device(arguments.device), min(arguments.num, VALIDATION_SIZE)
    crops: EncodedCrops | None = None
    seen_by: dict[str, torch.Tensor] = {}
    rows = []
    for path in arguments.checkpoints:
        checkpoint = read_checkpoint(path)
        model = build_smpler(checkpoint.config, open_body())
        load_weights(model, checkpoint)
        backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        model = model.to(device).eval()
        if crops is None:
            batches = reading(validation_set(open_body()), count, arguments.num_workers)
            crops, seen_by = encode_crops(model, batches, count, device, "crops"), backbone
        elif seen_by.keys() != backbone.keys() or any(
            not torch.equal(value, seen_by[name]) for name, value in backbone.items()
        ):
            raise ValueError(
                f"{checkpoint.source} has another backbone than {arguments.checkpoints[0]}; give "
                "checkpoints of one training with --cache_features."
            )
        facts = read_tensors(path)
        about = {"checkpoint": str(path), "steps": facts.get("global_iter")}
        rows.append(about | {"elapsed_s": facts.get("elapsed_s")} | errors(model, crops))
    return sorted(rows, key=lambda row: row["steps"] or 0)


@torch.inference_mode()
def errors(model: SMPLer, crops: EncodedCrops) -> dict[str, list[float]]:
    """Return the mean errors of each stage, millimetres: the initial estimate, then each block."""
    device = model.mean.device
    sums: list[dict[str, float]] = []
    for index in torch.arange(len(crops), device=device).split(64):
        batch = crops.batch(torch.zeros_like(index), index)
        stages = model(batch["image"], all_stages=True)
        sums = sums or [dict.fromkeys(SHOWN, 0.0) for _ in stages]
        for total, stage in zip(sums, stages, strict=True):
            found = measure(stage, model.smpl, batch)
            for name in SHOWN:
                total[name] += found[name].sum().item()
    scale = 1000 / len(crops)
    return {name: [round(scale * total[name], 2) for total in sums] for name in SHOWN}


if __name__ == "__main__":
    sys.exit(main())
