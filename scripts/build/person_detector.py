"""Convert BlazePose's person detector from MediaPipe's wheel to our own module's state dict.

The network in the wheel is Apache-2.0, and so are its weights in our file.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from scripts.build.wheels import read_from_wheel
from smpler.models.detectors.blazepose import PersonNetwork
from smpler.utils.paths import PRETRAINED, SAMPLES, display

WHEEL = "mediapipe==0.10.21"
"""The last release that carries the networks; its wheels exist for Python 3.9 to 3.12."""
TFLITE = "mediapipe/modules/pose_detection/pose_detection.tflite"
TFLITE_SHA256 = "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
TOLERANCE = 2e-3
"""Largest difference allowed between our network's values (pixels, logits) and the original's."""


def main() -> int:
    """Write the weights, and compare with the original network."""
    args = parse_args()
    try:
        interpreter = open_network(read_from_wheel(WHEEL, TFLITE, TFLITE_SHA256, args.wheel))
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    network = convert(interpreter)
    check_parity(network, interpreter)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **{k: v.half().numpy() for k, v in network.state_dict().items()})
    print(f"{display(args.out)}: {args.out.stat().st_size / 1e6:.2f} MB")
    if args.golden:
        write_golden(args.golden, interpreter)
    return 0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PRETRAINED / "person_detector.npz")
    parser.add_argument("--wheel", type=Path, help=f"wheel of {WHEEL}; downloaded if not given")
    parser.add_argument("--golden", type=Path, help="also write the test's golden outputs here")
    return parser.parse_args()


def open_network(content: bytes):
    """Return an interpreter of a .tflite file that lets its weights and all maps be read.

    Raises:
        ImportError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise ImportError(
            "ai-edge-litert is missing: pip install -r requirements-assets.txt"
        ) from None
    # plain kernels and every tensor kept, so that the unpacked weights can be read
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def convert(interpreter) -> PersonNetwork:
    """Return our network with the original's weights."""
    run(interpreter, np.zeros((224, 224, 3), np.uint8))  # sparse weights are unpacked by running
    network = PersonNetwork().eval()
    left_over = copy_convolutions(network, interpreter)
    assert not left_over, f"{len(left_over)} convolutions are left over"
    return network


def copy_convolutions(network: nn.Module, interpreter) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pair each of our convolutions with the original's first unused one of the same shape.

    Both list them in the order of execution within a shape; the caller's comparison of outputs
    proves the pairs.

    Returns:
        Weights and biases of the convolutions that are left over.
    """
    originals = list(read_convolutions(interpreter))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            shapes = [weight.shape for weight, _ in originals]
            weight, bias = originals.pop(shapes.index(tuple(layer.weight.shape)))
            layer.weight.data = torch.from_numpy(weight)
            layer.bias.data = torch.from_numpy(bias)
    return originals


def read_convolutions(interpreter):
    """Yield weight (out, in / groups, k, k) and bias (out,) of each convolution, as executed."""
    # the one way to the graph without parsing the file; the version is pinned for it
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            _, weight, bias = (interpreter.get_tensor(index) for index in op["inputs"])
            axes = (0, 3, 1, 2) if op["op_name"] == "CONV_2D" else (3, 0, 1, 2)
            yield np.ascontiguousarray(weight.transpose(axes)), bias.copy()


def run(interpreter, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the original's values (2254, 12) and logits (2254,) of a (224, 224, 3) RGB image."""
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], image[None].astype(np.float32) / 127.5 - 1
    )
    interpreter.invoke()
    values, logits = (interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details())
    return values[0].copy(), logits[0, :, 0].copy()


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
    """Scores of logits."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def person_thumbnail() -> np.ndarray:
    """A person of 56 pixels, each repeated 4 x 4 to make (224, 224, 3) RGB."""
    photo = cv2.imread(str(SAMPLES / "im01.png"))[60:, 20:, ::-1]
    small = cv2.resize(photo, (56, 56), interpolation=cv2.INTER_AREA)
    return small.repeat(4, axis=0).repeat(4, axis=1)


def write_golden(path: Path, interpreter) -> None:
    """Write the original's outputs for the thumbnail: all logits, values of every eighth anchor."""
    image = person_thumbnail()
    values, logits = run(interpreter, image)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, image=image[::4, ::4], values=values[::8], logits=logits)
    print(f"{display(path)}: {path.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    sys.exit(main())
