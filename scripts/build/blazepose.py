"""Convert BlazePose's landmark network from MediaPipe's wheel to our own modules' weights.

The network in the wheel is Apache-2.0. It becomes two files: the backbone that a training of
`smpler-blaze` starts from, which is not shipped, and the landmark detector, which is.
"""

import sys
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scripts.build import tflite
from smpler.models.backbones import BACKBONES
from smpler.models.backbones.blazepose import (
    COARSEST_SCALE,
    INPUT_SIDE,
    LANDMARK_SCALE,
    NUM_LANDMARKS,
    BlazePoseBackbone,
)
from smpler.models.detectors.blazepose import PersonLandmarks
from smpler.utils.files.whole import write_whole
from smpler.utils.flags import Parser, output_file, program
from smpler.utils.image import CROP_SIZE, CropWindow, crop, read_image
from smpler.utils.paths import SAMPLES, display

TFLITE = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"
TFLITE_SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
LEFT_OUT = {(8, 16), (8, 48), (8, 8), (1, 8), (39, 48), (1, 288), (16, 1), (48, 1), (8, 1)}
"""(out, in) of the convolutions for mask, heatmaps and presence, which our backbone lacks."""
AS_EXECUTED = (
    *("stage4", "stage8", "stage16", "stage32", "widen"),
    *("laterals", "tower", "landmarks", "world_landmarks"),
)
"""Parts of our backbone in the order in which the original executes them: this order decides
which of two convolutions of one shape is which."""
PERSON_BOX = (160.0, 110.0, 250.0, 430.0)
"""x, y, w, h of the person in samples/im01.png, pixels."""
PRESENCE = (1, 288, 2, 2)
"""Shape of the weights of the output that says whether there is a person."""
READERS = {"finest": (39, 1, 1, 48), "stage16": (528, 1, 1, 88), "coarsest": (864, 1, 1, 144)}
"""Map -> weights' shape of the convolution that reads it; of several, the last one does."""
TOLERANCE = 1e-3
"""Largest difference that is allowed, relative to the largest value."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the weights, and compare with the original network."""
    parser = Parser(description=__doc__.splitlines()[0])
    tflite.add_flags(parser, BACKBONES["blazepose-full"].weights_file)
    parser.add_argument("--landmarks", type=output_file, help="also write the detector here")
    args = parser.parse_args(argv)
    interpreter = tflite.open_network(TFLITE, TFLITE_SHA256, args.wheel)
    network, landmarks = convert(interpreter)
    check_parity(network, landmarks, interpreter)
    write_whole(args.out, lambda file: torch.save(network.state_dict(), file))
    print(f"{display(args.out)}: {args.out.stat().st_size / 1e6:.2f} MB")
    if args.landmarks:
        tflite.save_half(args.landmarks, landmarks)
    if args.golden:
        tflite.save_golden(args.golden, golden(interpreter))
    return 0


def convert(interpreter) -> tuple[BlazePoseBackbone, PersonLandmarks]:
    """Return our networks with the original's weights; `check_parity` proves the pairs."""
    run(interpreter, torch.zeros(1, 3, CROP_SIZE, CROP_SIZE))  # weights are unpacked by running
    network = BlazePoseBackbone().eval()
    parts = [getattr(network, name) for name in AS_EXECUTED]
    left_over = tflite.copy_convolutions(nn.ModuleList(parts), interpreter)
    ((weight, bias),) = [pair for pair in left_over if pair[0].shape == PRESENCE]
    shapes = {weight.shape[:2] for weight, _ in left_over}
    assert shapes <= LEFT_OUT, f"convolutions are left over: {shapes - LEFT_OUT}"
    landmarks = PersonLandmarks().eval()
    state = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith("laterals.")
    }
    state |= {"presence.weight": torch.from_numpy(weight), "presence.bias": torch.from_numpy(bias)}
    landmarks.load_state_dict(state)
    return network, landmarks


def run(interpreter, images: Tensor) -> dict[str, np.ndarray]:
    """Return the original's maps and landmarks of one (1, 3, 224, 224) crop.

    `finest` (48, 32, 32), averaged over 2 x 2 pixels as the backbone does it, `stage16`
    (88, 16, 16), `coarsest` (144, 8, 8), `landmarks` (39, 5), `world_landmarks` (39, 3), and
    `score` (1,), the probability that there is a person.
    """
    answer = ask(interpreter, images)
    shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_tensor_details()}
    maps = {}
    for op in interpreter._get_ops_details():
        for name, shape in READERS.items():
            if op["op_name"] == "CONV_2D" and shapes[op["inputs"][1]] == shape:
                maps[name] = interpreter.get_tensor(op["inputs"][0])[0].transpose(2, 0, 1)
    maps["finest"] = maps["finest"].reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    return maps | answer


def ask(interpreter, images: Tensor) -> dict[str, np.ndarray]:
    """Return the original's landmarks and score, see `run`; they are of all its variants."""
    resized = F.interpolate(images, (INPUT_SIDE, INPUT_SIDE), mode="bilinear")
    outputs = tflite.invoke(interpreter, resized.permute(0, 2, 3, 1).numpy())
    landmarks, world_landmarks = (
        next(x for x in outputs if x.size == NUM_LANDMARKS * count) for count in (5, 3)
    )
    score = next(x for x in outputs if x.size == 1)
    return {
        "score": score.reshape(1),
        "landmarks": landmarks.reshape(NUM_LANDMARKS, 5),
        "world_landmarks": world_landmarks.reshape(NUM_LANDMARKS, 3),
    }


@torch.no_grad()
def outputs_of(network: BlazePoseBackbone, images: Tensor) -> dict[str, np.ndarray]:
    """Return the same maps and landmarks of our backbone."""
    encoded = network.encode(images)
    maps = [x[0].numpy() for x in network.decode(*encoded)]
    # the last map's channels end with the landmarks, which are the same in every pixel
    values = maps[-1][-NUM_LANDMARKS * (len(LANDMARK_SCALE) + 3) :, 0, 0]
    landmarks, world_landmarks = np.split(values, [NUM_LANDMARKS * len(LANDMARK_SCALE)])
    return {
        "finest": maps[0],
        "stage16": encoded[-1][0].numpy(),
        "coarsest": maps[-1][:144] / COARSEST_SCALE,
        "landmarks": landmarks.reshape(NUM_LANDMARKS, -1) / np.array(LANDMARK_SCALE),
        "world_landmarks": world_landmarks.reshape(NUM_LANDMARKS, 3),
    }


def check_parity(network: BlazePoseBackbone, landmarks: PersonLandmarks, interpreter) -> None:
    """Print how far our networks are from the original on noise and on a person."""
    for name, images in inputs().items():
        expected, ours = run(interpreter, images), outputs_of(network, images)
        alone = answer_of(landmarks, images)
        ours["score"] = alone["score"]
        expected["landmarks alone"], ours["landmarks alone"] = (
            expected["landmarks"],
            alone["landmarks"],
        )
        compare(name, ours, expected)


def inputs() -> dict[str, Float[Tensor, "1 3 224 224"]]:
    """Return what our networks and the originals are compared on."""
    noise = torch.rand(1, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))
    return {"noise": noise, "person": person_crop()}


@torch.no_grad()
def answer_of(network: PersonLandmarks, images: Tensor) -> dict[str, np.ndarray]:
    """Return what `ask` does, of our network."""
    values, presence = network(images)
    world_landmarks = network.world_landmarks(network.look(images))
    return {
        "landmarks": values[0].numpy(),
        "world_landmarks": world_landmarks.reshape(NUM_LANDMARKS, 3).numpy(),
        "score": presence.sigmoid().numpy(),
    }


def compare(name: str, ours: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Print how far our outputs are from the original's.

    Raises:
        ValueError: one of them is too far.
    """
    for key, value in expected.items():
        error = np.abs(ours[key] - value).max() / np.abs(value).max()
        print(f"{name}, {key}: within {error:.1e} of the largest value")
        if not error <= TOLERANCE:
            raise ValueError(f"{name}: {key} differ by {error}, more than {TOLERANCE}")


def person_crop() -> Float[Tensor, "1 3 224 224"]:
    """Return a crop of one of the samples, RGB in [0, 1]."""
    photo = read_image(SAMPLES / "im01.png")
    return torch.from_numpy(crop(photo, CropWindow.for_box(PERSON_BOX))).permute(2, 0, 1)[None]


def golden(interpreter) -> dict[str, np.ndarray]:
    """Return the original's outputs for the crop, of the maps every 4th value along each axis."""
    expected = run(interpreter, person_crop())
    return expected | {name: expected[name][::4, ::4, ::4] for name in READERS}


if __name__ == "__main__":
    sys.exit(main())
