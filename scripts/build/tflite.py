"""Read MediaPipe's networks, which are TensorFlow Lite files, and copy their weights into ours."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scripts.build.wheels import read_from_wheel
from smpler.utils.files.whole import write_whole
from smpler.utils.flags import input_file, output_file
from smpler.utils.paths import display

WHEEL = "mediapipe==0.10.21"
"""The last release that carries the networks; its wheels exist for Python 3.9 to 3.12."""


def add_flags(parser: argparse.ArgumentParser, out: Path) -> None:
    """Add the flags that both converters have; `out` is the default of --out."""
    parser.add_argument("--out", type=output_file, default=out)
    parser.add_argument(
        "--wheel", type=input_file, help=f"wheel of {WHEEL}; downloaded if not given"
    )
    parser.add_argument("--golden", type=output_file, help="also write the tests' outputs here")


def open_network(name: str, sha256: str, wheel: Path | None = None):
    """Return an interpreter of a network in MediaPipe's wheel; all its tensors can be read.

    Args:
        name: of the .tflite file within the wheel.
        sha256: of that file.
        wheel: the wheel's file; default: pip downloads it.

    Raises:
        ImportError: ai-edge-litert is not installed.
        FileNotFoundError: pip found no such wheel.
        ValueError: the wheel lacks the network, or holds another version of it.
    """
    return interpret(lambda: read_from_wheel(WHEEL, name, sha256, wheel))


def interpret(read: Callable[[], bytes]):
    """Return an interpreter of what `read` returns, a .tflite file; all its tensors can be read.

    Raises:
        ImportError: ai-edge-litert is not installed; then nothing is read.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise ImportError(
            "ai-edge-litert is missing: pip install -r requirements-assets.txt"
        ) from None
    # plain kernels and every tensor kept, so that the unpacked weights can be read
    interpreter = Interpreter(
        model_content=read(),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def invoke(interpreter, image: np.ndarray) -> list[np.ndarray]:
    """Run the network on one (1, height, width, 3) float32 image and return its outputs."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def copy_convolutions(network: nn.Module, interpreter) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give each of our convolutions the weights of the original's first unused one of its shape.

    Both list convolutions of one shape in the order of execution; the caller proves the pairs by
    comparing outputs.

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


def read_convolutions(interpreter) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield weight (out, in / groups, k, k) and bias (out,) of each convolution, as executed."""
    # the one way to the graph without parsing the file; the version is pinned for it
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            _, weight, bias = (interpreter.get_tensor(index) for index in op["inputs"])
            axes = (0, 3, 1, 2) if op["op_name"] == "CONV_2D" else (3, 0, 1, 2)
            yield np.ascontiguousarray(weight.transpose(axes)), bias.copy()


def save_half(path: Path, network: nn.Module) -> None:
    """Write a network's parameters as 16-bit floats, the precision that the originals have."""
    save_weights(path, {name: value.half() for name, value in network.state_dict().items()})


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: value.numpy() for name, value in tensors.items()}
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    print(f"{display(path)}: {path.stat().st_size / 1e6:.2f} MB")


def save_golden(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write what the original answers, for the tests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    print(f"{display(path)}: {path.stat().st_size / 1e3:.1f} kB")
