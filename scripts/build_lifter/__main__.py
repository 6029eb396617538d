"""Build the lifter, pretrained/lifter.npz: from landmarks to bodies, trained on motion capture.

`python -m scripts.build_lifter --poses FILE --bfloat16` takes 40 minutes on two CPU cores.
It renders people and looks at them with the landmark detectors (`residuals`), makes endless pairs
of landmarks and bodies (`pairs`), and trains (`training`). The same seed gives the same file on the
same machine. On processors that do not multiply in bfloat16, it is faster without that flag. FILE
is motion capture: AMASS's npz files or a folder of them, or an npz with `pose` (n, 24, 3), see
`poses.read_poses`. What is learned from it is subject to its terms.
"""

import argparse
import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from scripts.build_lifter.pairs import PairMaker
from scripts.build_lifter.poses import MixedPoses, read_several
from scripts.build_lifter.residuals import Looks, fit_offsets, look_at_people, residuals_of
from scripts.build_lifter.training import Recipe, errors, trained
from smpler.datasets.engine.poses.sampler import PoseSampler
from smpler.models.body import open_body
from smpler.models.detectors.landmarks import SIZES
from smpler.models.lifter import Lifter
from smpler.models.smpl import SMPL
from smpler.utils.files.whole import write_whole
from smpler.utils.flags import Parser, above_zero, input_path, output_file, positive, program, whole
from smpler.utils.paths import PRETRAINED, display

SEED_OF_PEOPLE = 77
"""Of the data engine's stream: people are the same whatever `--seed` is."""
NUM_VALIDATION = 2000
"""Pairs of held-out motion capture."""


@program
def main(argv: list[str] | None = None) -> int:
    """Build; return 0, or 2 with one sentence."""
    args = parse_arguments(argv)
    torch.set_num_threads(1)
    smpl = SMPL(open_body()).eval()
    captured, held_out = read_several(args.poses)
    looks = seen_of_people(args, captured)
    offsets = fit_offsets(smpl, looks)
    residuals = residuals_of(smpl, looks, offsets)
    drawn = PoseSampler().sample_batch(args.drawn, np.random.default_rng(args.seed))
    lifter = Lifter(args.networks, args.width, args.blocks)
    lifter.offsets.copy_(offsets)
    lifter.body.copy_(torch.tensor(list(bytes.fromhex(smpl.body.sha256)), dtype=torch.float32))
    recipe = Recipe(args.width, args.blocks, args.steps, args.batch, args.lr, args.bfloat16)
    makers = [
        PairMaker(smpl, captured, drawn, residuals, offsets, args.seed + number)
        for number in range(args.networks)
    ]
    # a network a core: on two cores it takes half as long as one network on both after the other
    with ProcessPoolExecutor(args.threads, get_context("spawn")) as processes:
        states = list(processes.map(trained, [recipe] * args.networks, makers))
    validation = PairMaker(smpl, captured, drawn, residuals, offsets, seed=0)
    pairs = validation.pairs_of(held_out, NUM_VALIDATION)
    for number, (network, state) in enumerate(zip(lifter.networks, states, strict=True)):
        network.load_state_dict(state)
        for name, value in errors(smpl, network(pairs.features), pairs).items():
            print(f"network {number}, {name}: {value:.3f}")
    save(args.out, lifter)
    for path in (*args.poses, args.out):
        if path.is_file():
            print(f"{display(path)}: sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return 0


def seen_of_people(args: argparse.Namespace, captured: Float[np.ndarray, "n 24 3"]) -> Looks:
    """Return what detectors see of rendered people; `--looks` keeps it for the next run."""
    if args.looks and args.looks.is_file():
        with np.load(args.looks, allow_pickle=False) as archive:
            return Looks(**{name: torch.from_numpy(archive[name]) for name in archive.files})
    poses = MixedPoses(captured, PoseSampler())
    looks = look_at_people(poses, list(SIZES), args.people, SEED_OF_PEOPLE, args.threads)
    if args.looks:
        arrays = {name: value.numpy() for name, value in vars(looks).items()}
        write_whole(args.looks, lambda file: np.savez(file, allow_pickle=False, **arrays))
    return looks


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="python -m scripts.build_lifter",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--poses", type=input_path, nargs="+", required=True, help="motion capture: AMASS or npz")
    add("--out", type=output_file, default=PRETRAINED / "lifter.npz", help="file to write")
    add("--people", type=positive, default=2500, help="rendered people who are looked at")
    add("--looks", type=output_file, help="npz that keeps what was seen of them for the next time")
    add("--drawn", type=positive, default=12000, help="poses of the data engine's sampler")
    add("--networks", type=positive, default=2, help="how many are trained and averaged")
    add("--width", type=positive, default=512, help="of the hidden layers")
    add("--blocks", type=positive, default=3, help="of two layers each")
    add("--steps", type=positive, default=20000)
    add("--batch", type=positive, default=384)
    add("--lr", type=above_zero, default=1e-3, help="largest learning rate")
    add("--bfloat16", action="store_true", help="faster on processors that multiply in it")
    add("--seed", type=whole, default=0)
    add("--threads", type=positive, default=2, help="CPU cores")
    return parser.parse_args(argv)


def save(path: Path, lifter: Lifter) -> None:
    """Write the weights in float16."""
    state = lifter.state_dict()
    exact = ("offsets", "body")
    arrays = {n: (x if n in exact else x.half()).numpy() for n, x in sorted(state.items())}
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


if __name__ == "__main__":
    sys.exit(main())
