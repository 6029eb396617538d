"""Errors in space on a person who is seen by four calibrated cameras.

`python -m benchmarks.multiview --movenet ARCHIVE --json FILE` takes four videos of a man on a beam
from Pose2Sim's demo, lets MoveNet find his joints in each, and triangulates them. The predictor
then gets one camera's frame at a time, and its keypoints are compared with the triangulated ones
(`benchmarks.multiview.measures` defines the numbers). MoveNet is independent of our weights and of
the landmarks that bodies are fitted to. It defines joints a little differently (a hip is where
annotators click), so that some centimetres of error remain in any case. As it is one man, compare
numbers with each other rather than with those of other data. Whatever is chosen by these numbers is
chosen with `--clip choosing`, which shows someone else (`benchmarks.multiview.clips`).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import print_markdown, trained_weights, write
from benchmarks.judges.movenet import MoveNetJudge
from benchmarks.multiview.clips import CLIPS, WHEEL, read_clip
from benchmarks.multiview.measures import axis_errors_mm, measured, scatter_of_seen
from benchmarks.multiview.views import Case, View, thigh_spread
from benchmarks.posture import keypoints_of
from scripts.build.tfjs import PACKAGE
from smpler.models.answers import Answer
from smpler.models.detectors.landmarks import SEEN_KEYPOINTS, SIZES, BlazePoseLandmarkDetector
from smpler.models.fitting import Prior
from smpler.models.observation import Observation
from smpler.models.placement import Placement
from smpler.models.predictor import Predictor
from smpler.utils.flags import Parser, device_name, input_file, output_file, program, weights_file
from smpler.utils.paths import display


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write the numbers."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=weights_file, help="default: the released weights")
    add("--device", type=device_name, default="cpu")
    add("--clip", choices=list(CLIPS), default="judging", help="judging: the man on the beam")
    add("--movenet", type=input_file, required=True, help=f"npm's archive of {PACKAGE}")
    add("--wheel", type=input_file, help=f"wheel of {WHEEL}; downloaded if not given")
    add("--landmarks", choices=list(SIZES), help="BlazePose's network; default: as demo.py")
    add(
        "--ablation", action="store_true", help="also measure with parts of the demo's way left out"
    )
    add("--json", type=output_file, help="file for the numbers")
    args = parser.parse_args(argv)
    judge = MoveNetJudge(args.movenet)
    checkpoint = trained_weights(args.checkpoint)
    predictor = Predictor.load(
        checkpoint, device=args.device, mirror=True, fit=True, landmarks=args.landmarks
    )
    model = predictor.model
    if model.smpl.body.h36m_regressor is None:
        raise ValueError(f"The body of {display(checkpoint)} has no keypoint regressor.")
    detector = predictor.load_person_detector()
    cases, offsets = read_clip(CLIPS[args.clip], judge, detector, args.wheel)
    result = {"weights": display(checkpoint), "clip": args.clip, "views": len(cases)}
    result["landmarks"] = predictor.detectors.landmark_size(quick=False)
    result |= {"offsets": offsets, "thigh_spread_mm": 1000 * thigh_spread(cases)}
    result["reprojection_px"] = float(np.median([case.errors for case in cases]))
    ways = {
        name: Predictor(model, mirror=mirror, landmarks=args.landmarks)
        for name, mirror in (("network", False), ("mirrored", True))
    }
    ways |= less_than(predictor) if args.ablation else {}
    ways["fitted"] = predictor
    known, up = (
        torch.from_numpy(np.stack(rows))
        for rows in ([x.joints for x in cases], [x.camera.up() for x in cases])
    )
    by_axis = {}
    for name, way in ways.items():
        found, scatter = estimates(way, cases)
        numbers = measured(found, known, up, scatter)
        result |= {f"{name}_{key}": value for key, value in numbers.items()}
        by_axis[name] = axis_errors_mm(found, known)
    print_markdown(result)
    print_by_axis(by_axis)
    write(args.json, result | {"rms_mm": by_axis})
    return 0


class FixedScatters(Predictor):
    """Starts from the same bodies, but knows as little of their errors as without the lifter."""

    def prior(self, people: Placement, seen: Observation) -> Prior:
        """Return the prior with the scatters of a network's answer."""
        prior = super().prior(people, seen)
        fixed = Prior.of_network(people)
        return replace(prior, rotation=fixed.rotation, depth=fixed.depth, betas=fixed.betas)


def less_than(predictor: Predictor) -> dict[str, Predictor]:
    """Return predictors that do without a part of the demo's way."""
    size = predictor.detectors.landmark_size(quick=False)
    one, two = (
        BlazePoseLandmarkDetector.load(None, predictor.device, size, two_looks)
        for two_looks in (False, True)
    )
    ways = {}
    for name, kind, looks, lift in (
        ("pinhole-only", Predictor, one, False),
        ("two-looks-only", Predictor, two, False),
        ("lifter-only", Predictor, one, True),
        ("fixed-scatters", FixedScatters, two, True),
    ):
        ways[name] = kind(predictor.model, None, looks, mirror=True, fit=True, lift=lift)
    return ways


def estimates(
    way: Predictor, cases: Sequence[Case]
) -> tuple[Float[Tensor, "b 12 3"], Float[Tensor, "b 12"] | None]:
    """Return the joints of each view by a predictor, and their scatters if it says them; metres."""
    answers = [answer_to(way, case.view) for case in tqdm(cases, disable=None)]
    keypoints = torch.cat([keypoints_of(answer) for answer in answers])
    scatters = [getattr(answer, "scatter", None) for answer in answers]
    said = [scatter_of_seen(scatter).double().cpu() for scatter in scatters if scatter is not None]
    scatter = torch.cat(said) if said and len(said) == len(answers) else None
    return keypoints[:, SEEN_KEYPOINTS], scatter


def answer_to(way: Predictor, view: View) -> Answer:
    """Return a predictor's answer to one view."""
    boxes = None if view.box is None else [view.box]
    return way.look(view.photo, [view.window], boxes, view.others)


def print_by_axis(by_axis: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a row for each pair of joints: the errors of each way along x, y and z."""
    titles = [f"{way} {axis}" for way in by_axis for axis in "xyz"]
    print(f"\n| RMS, mm | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
    for part in next(iter(by_axis.values())):
        values = [f"{numbers[part][axis]:.0f}" for numbers in by_axis.values() for axis in "xyz"]
        print(f"| {part} | {' | '.join(values)} |")


if __name__ == "__main__":
    sys.exit(main())
