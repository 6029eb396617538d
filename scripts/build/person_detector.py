"""Convert BlazePose's person detector from MediaPipe's wheel to our own module's state dict.

The network in the wheel is Apache-2.0, and so are its weights in our file.
"""

import sys

import cv2
import numpy as np
import torch

from scripts.build import tflite
from smpler.models.detectors.blazepose import PersonNetwork
from smpler.utils.flags import Parser, program
from smpler.utils.image import read_image
from smpler.utils.paths import PRETRAINED, SAMPLES

TFLITE = "mediapipe/modules/pose_detection/pose_detection.tflite"
TFLITE_SHA256 = "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
TOLERANCE = 2e-3
"""Largest difference allowed between our network's values (pixels, logits) and the original's."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the weights, and compare with the original network."""
    parser = Parser(description=__doc__.splitlines()[0])
    tflite.add_flags(parser, PRETRAINED / "person_detector.npz")
    args = parser.parse_args(argv)
    interpreter = tflite.open_network(TFLITE, TFLITE_SHA256, args.wheel)
    network = convert(interpreter)
    check_parity(network, interpreter)
    tflite.save_half(args.out, network)
    if args.golden:
        tflite.save_golden(args.golden, golden(interpreter))
    return 0


def convert(interpreter) -> PersonNetwork:
    """Return our network with the original's weights."""
    run(interpreter, np.zeros((224, 224, 3), np.uint8))  # sparse weights are unpacked by running
    network = PersonNetwork().eval()
    left_over = tflite.copy_convolutions(network, interpreter)
    assert not left_over, f"{len(left_over)} convolutions are left over"
    return network


def run(interpreter, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the original's values (2254, 12) and logits (2254,) of a (224, 224, 3) RGB image."""
    values, logits = tflite.invoke(interpreter, image[None].astype(np.float32) / 127.5 - 1)
    return values[0], logits[0, :, 0]


def check_parity(network: PersonNetwork, interpreter) -> None:
    """Print how far our network is from the original on noise and on a person."""
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    for name, image in (("noise", noise), ("person", person_thumbnail())):
        expected_values, expected_logits = run(interpreter, image)
        with torch.no_grad():
            batch = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
            values, logits = (output[0].numpy() for output in network(batch))
        error = np.abs(values - expected_values).max()
        score_error = np.abs(sigmoid(logits) - sigmoid(expected_logits)).max()
        print(f"{name}: values within {error:.1e} px, scores within {score_error:.1e}")
        if max(error, np.abs(logits - expected_logits).max()) > TOLERANCE:
            raise ValueError(f"{name}: values differ by {error} px, more than {TOLERANCE}")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the scores that logits stand for."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def person_thumbnail() -> np.ndarray:
    """Return a person of 56 x 56 pixels, each repeated 4 x 4: (224, 224, 3) RGB."""
    photo = read_image(SAMPLES / "im01.png")[60:, 20:]
    small = cv2.resize(photo, (56, 56), interpolation=cv2.INTER_AREA)
    return small.repeat(4, axis=0).repeat(4, axis=1)


def golden(interpreter) -> dict[str, np.ndarray]:
    """Return the original's outputs for the thumbnail: all logits, values of every 8th anchor."""
    image = person_thumbnail()
    values, logits = run(interpreter, image)
    return {"image": image[::4, ::4], "values": values[::8], "logits": logits}


if __name__ == "__main__":
    sys.exit(main())
