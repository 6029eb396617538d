"""How far 16 bits move the body: python -m benchmarks.half_precision --checkpoint FILE --json FILE.

The optimised model in bfloat16 and in float16 is compared with the plain one in float32, on people
of the open engine's fixed validation set. It needs trained weights, as random ones amplify
rounding, but no hardware that has these types: torch imitates them.
"""

import sys

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.harness import trained_weights, write
from smpler.datasets.engine.stream import VALIDATION_SEED, SyntheticPeople
from smpler.models.inference.optimize import optimize_for_inference
from smpler.models.smpler import SMPLer
from smpler.models.weights.checkpoint import load_model
from smpler.utils.flags import Parser, device_name, output_file, positive, program, weights_file

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print, write the numbers; return 0, or 2 with one sentence."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", type=weights_file, help="trained weights; default: the released ones")
    add("--device", type=device_name, default="cpu")
    add("--num", type=positive, default=200, help="samples of the validation set")
    add("--batch", type=positive, default=8)
    add("--json", type=output_file, help="file for the numbers")
    arguments = parser.parse_args(argv)
    checkpoint = trained_weights(arguments.checkpoint)
    model = load_model(None, checkpoint, device=arguments.device)
    people = SyntheticPeople(model.smpl.body, split="val", seed=VALIDATION_SEED)
    loader = DataLoader(people.first(arguments.num), batch_size=arguments.batch)
    batches = [batch["image"].to(arguments.device) for batch in loader]
    result = {"weights": checkpoint.name, "num": arguments.num, "device": arguments.device}
    print(f"{checkpoint.name}, {arguments.num} people")
    for name, dtype in DTYPES.items():
        mean, worst = measure(model, batches, dtype)
        result |= {f"{name}_mm": mean, f"{name}_worst_mm": worst}
        print(
            f"{name}: mean distance of vertices {mean:.2f} mm, of the worst person {worst:.2f} mm"
        )
    write(arguments.json, result)
    return 0


@torch.inference_mode()
def measure(
    model: SMPLer, batches: list[Float[Tensor, "_ 3 224 224"]], dtype: torch.dtype
) -> tuple[float, float]:
    """Return the mean distance of the vertices, millimetres: of all, and of the worst person."""
    fast = optimize_for_inference(model, dtype=dtype)
    distances = []
    for images in batches:
        plain, found = model(images)[-1].vertices, fast(images)[-1].vertices
        distances.append((plain - found).norm(dim=-1).mean(dim=1))
    distances = 1000 * torch.cat(distances)
    return distances.mean().item(), distances.max().item()


if __name__ == "__main__":
    sys.exit(main())
