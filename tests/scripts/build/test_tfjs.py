import base64
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scripts.build import tfjs


def text(word: bytes) -> str:
    return base64.b64encode(word).decode()


def steps(number: int, key: str = "strides") -> dict:
    return {key: {"list": {"i": ["1", str(number), str(number), "1"]}}}


def graph_of(nodes: list[dict], constants: dict[str, np.ndarray]) -> tfjs.Graph:
    """A network whose floats are kept in float16."""
    listed, content = [], b""
    for name, value in constants.items():
        entry = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if value.dtype == np.float32:
            entry["quantization"] = {"dtype": "float16"}
            value = value.astype(np.float16)
        listed.append(entry)
        content += value.tobytes()
    nodes = [{"name": name, "op": "Const"} for name in constants] + nodes
    graph = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": listed}]}
    return tfjs.Graph(json.dumps(graph).encode(), content)


def node(name: str, op: str, *inputs: str, **attributes) -> dict:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


@pytest.fixture
def small_network():
    """Pad, convolve, activate, take the largest: as NanoDet starts, channels first."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 3, 2, 4)).astype(np.float16).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    paddings = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], np.int32)
    valid = {"padding": {"s": text(b"VALID")}}
    nodes = [
        node("image", "Placeholder"),
        node("padded", "Pad", "image", "paddings"),
        node("last", "Transpose", "padded", "to_last"),
        node("convolution", "Conv2D", "last", "weight", **steps(2), **valid),
        node("biased", "Add", "convolution", "bias"),
        node("first", "Transpose", "biased", "to_first"),
        node("active", "LeakyRelu", "first", alpha={"f": 0.1}),
        node("framed", "PadV2", "active", "paddings", "lowest"),
        node("framed_last", "Transpose", "framed", "to_last"),
        node(
            "largest", "MaxPool", "framed_last", "^image", **steps(2), **steps(3, "ksize"), **valid
        ),
        node("broken", "NoSuchOperation", "largest"),
    ]
    constants = {
        "paddings": paddings, "weight": weight, "bias": bias,
        "lowest": np.array(-np.inf, np.float32),
        "to_last": np.array([0, 2, 3, 1], np.int32), "to_first": np.array([0, 3, 1, 2], np.int32),
    }  # fmt: skip
    return graph_of(nodes, constants), torch.from_numpy(weight), torch.from_numpy(bias)


def test_a_graph_gives_what_torchs_own_layers_give(small_network):
    graph, weight, bias = small_network
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 2, 8, 12)).astype(np.float32))
    (found,) = graph.run(image, ["largest"])
    x = F.conv2d(image, weight.permute(3, 2, 0, 1), bias, stride=2, padding=1)
    expected = F.max_pool2d(F.leaky_relu(x, 0.1), 3, 2, padding=1).permute(0, 2, 3, 1)
    assert found.shape == (1, 2, 3, 4)
    assert torch.allclose(found, expected, atol=1e-6), (found - expected).abs().max()


def test_convolutions_come_with_their_biases_in_torchs_layout(small_network):
    graph, weight, bias = small_network
    ((found, found_bias),) = graph.convolutions()
    assert torch.equal(found, weight.permute(3, 2, 0, 1)) and torch.equal(found_bias, bias)


def test_only_what_an_output_needs_is_run(small_network):
    graph = small_network[0]
    with pytest.raises(KeyError, match="NoSuchOperation"):
        graph.run(torch.zeros(1, 2, 8, 8), ["broken"])


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "last"), [(6, 3, 2, 1), (5, 3, 2, 2), (6, 3, 1, 3)]
)
def test_even_sides_are_padded_behind_as_tensorflow_does(side, kernel, stride, last):
    x = np.arange(side * side, dtype=np.float32).reshape(1, side, side, 1)
    weight = np.zeros((kernel, kernel, 1, 1), np.float32)
    weight[kernel - 1, kernel - 1] = 1  # sees the pixel farthest behind
    attributes = {**steps(stride), "padding": {"s": text(b"SAME")}}
    for depthwise in (False, True):
        y = tfjs.convolve(depthwise, attributes, *map(torch.from_numpy, (x, weight)))
        # without padding in front (even side, stride 2) it sees pixel 2 first, else pixel 1
        first = 2 if last == 1 else 1
        assert y[0, 0, 0, 0] == x[0, first, first, 0]
        assert y.shape[1] == -(-side // stride)


def test_weights_that_the_graph_does_not_name_are_refused():
    listed = [{"name": "a", "shape": [2], "dtype": "float32"}]
    assert torch.equal(tfjs.read_weights(listed, b"\0" * 8)["a"], torch.zeros(2))
    with pytest.raises(ValueError, match="12 bytes of weights, but the graph names 8"):
        tfjs.read_weights(listed, b"\0" * 12)
