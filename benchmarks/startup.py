"""Time until the demo's first result: python -m benchmarks.startup --device cpu.

From the start of the process until all files of one photo are written, on a warm disk. The baseline
is the same demo after importing the libraries that it once imported (`HEAVY`). Both take turns in
fresh processes. `import torch` alone is the least that is possible.
"""

import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks.harness import machine, write
from smpler.utils.flags import Parser, device_name, output_file, positive, program
from smpler.utils.paths import ROOT, SAMPLES

HEAVY = ("torchvision.ops", "scipy.spatial.transform", "scipy.sparse", "trimesh")
PROGRAM = """
import importlib, json, sys
for name in sys.argv[1].split():
    importlib.import_module(name)
if len(sys.argv) > 2:
    from smpler.command import main
    if main(sys.argv[2:]):
        sys.exit("the demo failed")
print(json.dumps(sorted(sys.modules)), flush=True)
"""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the numbers."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, choices=[1], default=1, help="photos")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--json", type=output_file, help="file for the numbers")
    arguments = parser.parse_args(argv)
    heavy = [name for name in HEAVY if find_spec(name.split(".")[0])]
    times = {"torch": [], "baseline": [], "ours": []}
    first_result([], arguments.device)  # warms the disk
    for _ in range(arguments.rounds):
        times["torch"].append(run_timed(["torch"])[0])
        times["baseline"].append(first_result(heavy, arguments.device)[0])
        times["ours"].append(first_result([], arguments.device)[0])
    torch_ms, baseline, ours = (1000 * float(np.median(values)) for values in times.values())
    result: dict[str, object] = {
        "baseline_ms": baseline,
        "ours_ms": ours,
        "throughput_ratio": baseline / ours,
    }
    result |= {"import_torch_ms": torch_ms, "baseline_imports": heavy}
    result |= {"ours_best_ms": 1000 * min(times["ours"]), "rounds": arguments.rounds}
    result |= machine(torch.device(arguments.device))
    print(f"{'to the first result, s':28}{'median':>8}")
    print(f"{'import torch alone':28}{torch_ms / 1000:8.2f}")
    print(f"{'demo, heavy imports first':28}{baseline / 1000:8.2f}")
    print(f"{'demo':28}{ours / 1000:8.2f}")
    write(arguments.json, result)
    return 0


def first_result(imports: list[str], device: str) -> tuple[float, set[str]]:
    """Run the demo on one photo in a new process, after some imports, as `run_timed` does."""
    with tempfile.TemporaryDirectory() as folder:
        photo = SAMPLES / "im01.png"
        return run_timed(
            imports, f"--img_path={photo}", f"--device={device}", f"--out_dir={folder}"
        )


def run_timed(imports: list[str], *arguments: str) -> tuple[float, set[str]]:
    """Run a new process; return its seconds, and the modules that it has imported."""
    command = [sys.executable, "-c", PROGRAM, " ".join(imports), *arguments]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        line = ""
        assert process.stdout is not None
        for line in process.stdout:  # noqa: B007, the last line counts
            seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"The demo ended with {process.returncode}.")
    return seconds, set(json.loads(line))


if __name__ == "__main__":
    sys.exit(main())
