"""Convert the heavy variant of BlazePose's landmark network from npm's @mediapipe/pose.

The network in the package is Apache-2.0. PyPI's wheels hold the full variant only. Its pointwise
convolutions become int8 with one scale per output channel; what is small or moves the landmarks
most, depthwise convolutions and heads, stays in 16 bits.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scripts.build import npm, tflite
from scripts.build.blazepose import answer_of, ask, compare, inputs, person_crop
from scripts.build.rounding import round_network
from smpler.models.backbones.blazepose import HEAVY
from smpler.models.detectors.blazepose import PersonLandmarks
from smpler.models.detectors.landmarks import (
    LANDMARK_NAMES,
    SIZES,
    VIEW_PER_RADIUS,
    BlazePoseLandmarkDetector,
    cut,
    view_matrix,
)
from smpler.models.detectors.person import BOX_PER_RADIUS, BlazePosePersonDetector
from smpler.utils.flags import Parser, input_file, input_folder, output_file, program
from smpler.utils.image import read_image
from smpler.utils.paths import PRETRAINED, SAMPLES, display

PACKAGE = "@mediapipe/pose@0.5.1675469404"
TFLITE = "pose_landmark_heavy.tflite"
TFLITE_SHA256 = "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe"
AS_EXECUTED = (
    *("stage4", "stage8", "stage16", "stage32", "widen", "refinement", "tower"),
    *("landmarks", "world_landmarks", "presence"),
)
"""Our network's parts in the order in which the original executes them: this order decides which of
two convolutions of one shape is which."""
LEFT_OUT = {(24, 1), (8, 24), (48, 1), (8, 48), (8, 1), (8, 8), (1, 8), (39, 48)}
"""(out, in / groups) of the convolutions for mask and heatmaps, which our network lacks."""
TURNS, ZOOMS = (-0.35, 0.0, 0.35), (0.85, 1.15)
"""Radians and factors by which the views differ that the rounding is fitted to."""
MAX_MOVE = 0.5
"""Pixels of the view by which the median landmark may move by the rounding."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the weights, compare with the original network, and see what the rounding changes."""
    parser = Parser(description=__doc__.splitlines()[0])
    archive = f"archive of npm's {PACKAGE}; downloaded if not given"
    parser.add_argument("--archive", type=input_file, help=archive)
    parser.add_argument("--out", type=output_file, default=PRETRAINED / SIZES["heavy"][1])
    parser.add_argument("--golden", type=output_file, help="also write the tests' outputs here")
    photos = "folder of photos of people on which the rounding is measured, beside the samples"
    parser.add_argument("--photos", type=input_folder, help=photos)
    args = parser.parse_args(argv)
    interpreter = tflite.interpret(
        lambda: npm.read_from_package(PACKAGE, TFLITE, TFLITE_SHA256, args.archive)
    )
    network = convert(interpreter)
    for name, images in inputs().items():
        compare(name, answer_of(network, images), ask(interpreter, images))
    samples = sorted(SAMPLES.glob("im*"))
    write(args.out, network, torch.cat(list(views(samples, TURNS, ZOOMS))))
    check_movement(network, args.out, samples)
    if args.photos:
        check_movement(network, args.out, sorted(args.photos.iterdir()))
    if args.golden:
        tflite.save_golden(args.golden, ask(interpreter, person_crop()))
    return 0


def convert(interpreter) -> PersonLandmarks:
    """Return our network with the original's weights; the comparison proves the pairs."""
    ask(interpreter, person_crop())  # weights are unpacked by running
    network = PersonLandmarks(HEAVY).eval()
    parts = nn.ModuleList(getattr(network, name) for name in AS_EXECUTED)
    left_over = tflite.copy_convolutions(parts, interpreter)
    shapes = {weight.shape[:2] for weight, _ in left_over}
    assert shapes <= LEFT_OUT, f"convolutions are left over: {shapes - LEFT_OUT}"
    return network


def views(
    photos: list[Path], turns: tuple[float, ...] = (0.0,), zooms: tuple[float, ...] = (1.0,)
) -> Iterator[Float[Tensor, "1 3 256 256"]]:
    """Yield views of the people in photos, turned by radians and zoomed; every other one mirrored.

    With one turn and one zoom nothing is mirrored.
    """
    detector = BlazePosePersonDetector.load()
    for path in photos:
        photo = read_image(path)
        for person in detector.detect(photo):
            hip = np.array(person.hip_center, dtype=float)
            up = np.subtract(person.shoulder_center, hip)
            side = VIEW_PER_RADIUS * person.box[2] / BOX_PER_RADIUS
            for number, (turn, zoom) in enumerate((t, z) for t in turns for z in zooms):
                cosine, sine = np.cos(turn), np.sin(turn)
                turned = np.array([[cosine, -sine], [sine, cosine]]) @ up
                view = cut(photo, view_matrix(hip, turned, side / zoom))
                view = view[:, ::-1] if number % 2 else view
                yield torch.from_numpy(view.copy()).permute(2, 0, 1)[None].float() / 255


def write(path: Path, network: PersonLandmarks, images: Float[Tensor, "n 3 256 256"]) -> None:
    """Write the rounded weights.

    Args:
        path: of the npz.
        network: exact.
        images: what the rounding is fitted to.
    """
    tflite.save_weights(path, round_network(network, lambda: [network(x) for x in images.split(6)]))
    print(f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


@torch.no_grad()
def check_movement(network: PersonLandmarks, path: Path, photos: list[Path]) -> None:
    """Print how far the shipped file moves the landmarks of the people in photos.

    Raises:
        ValueError: the median is more than `MAX_MOVE`.
    """
    shipped = BlazePoseLandmarkDetector.load(path, size="heavy").network
    known = slice(len(LANDMARK_NAMES))
    moved = torch.cat([(shipped(x)[0] - network(x)[0])[:, known, :3].abs() for x in views(photos)])
    away, depth = moved[..., :2].norm(dim=-1), moved[..., 2]
    median, most = (away.quantile(share).item() for share in (0.5, 0.95))
    print(
        f"{display(photos[0].parent)}, {len(moved)} people: landmarks move by {median:.2f} px of "
        f"the view in the median, 95 % by at most {most:.2f} px; in depth by "
        f"{depth.quantile(0.5):.2f} and {depth.quantile(0.95):.2f}"
    )
    if not median <= MAX_MOVE:
        raise ValueError(f"landmarks move by {median:.2f} px, more than {MAX_MOVE}")


if __name__ == "__main__":
    sys.exit(main())
