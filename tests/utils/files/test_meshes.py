import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from smpler.utils.drawing.visualize import palette
from smpler.utils.files.meshes import Part, PhotoCamera, glb, obj, srgb_to_linear

DTYPES = {5126: ("<f4", 4), 5125: ("<u4", 4)}
WIDTHS = {"SCALAR": 1, "VEC3": 3}


def content_of(data: bytes) -> tuple[dict, bytes]:
    """The json of a .glb file and its binary, after a check of the container."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    chunks, start = [], 12
    while start < len(data):
        size, kind = struct.unpack_from("<I4s", data, start)
        assert size % 4 == 0 and start % 4 == 0, (kind, size, start)
        chunks.append((kind, data[start + 8 : start + 8 + size]))
        start += 8 + size
    (first, text), (second, binary) = chunks
    assert (first, second) == (b"JSON", b"BIN\0") and start == len(data)
    return json.loads(text), binary


def linear_to_srgb(linear) -> np.ndarray:
    """The way back of the formula under test, from its specification."""
    linear = np.asarray(linear)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.fixture
def parts() -> list[Part]:
    """Two balls that share their faces, and a box."""
    ball, box = trimesh.creation.icosphere(2), trimesh.creation.box()
    faces = np.array(ball.faces)
    first, second, third = palette(3)
    return [
        Part("a", ball.vertices, ball.vertices, faces, first),
        Part("b", 2 * ball.vertices, ball.vertices, faces, second, (1.0, 2.0, -3.0)),
        Part("c", box.vertices, box.vertex_normals, np.array(box.faces), third, (0.0, 0.5, 0.0)),
    ]


def test_parts_come_back_by_name_each_at_its_place_in_its_colour(parts):
    data = glb(parts)
    scene = trimesh.load_scene(trimesh.util.wrap_as_stream(data), file_type="glb", process=False)
    assert set(scene.graph.nodes_geometry) == {"a", "b", "c"}
    for part in parts:
        matrix, name = scene.graph[part.name]
        mesh = scene.geometry[name]
        assert name == part.name and np.array_equal(mesh.faces, part.faces)
        assert np.allclose(matrix, trimesh.transformations.translation_matrix(part.translation))
        error = np.abs(mesh.vertices - part.vertices).max()
        assert error < 1e-6, (part.name, error)
        assert np.allclose(mesh.vertex_normals, part.normals, atol=1e-6), part.name
    for part, material in zip(parts, content_of(data)[0]["materials"], strict=True):
        *linear, alpha = material["pbrMetallicRoughness"]["baseColorFactor"]
        error = np.abs(linear_to_srgb(linear) - part.color).max()
        assert error < 1e-9 and alpha == 1, (part.name, error)


def test_every_array_lies_whole_aligned_and_within_its_limits(parts):
    """What the glTF 2.0 specification asks of buffers, views and accessors."""
    content, binary = content_of(glb(parts, PhotoCamera(500.0, (640, 480))))
    (buffer,) = content["buffers"]
    assert buffer["byteLength"] <= len(binary) <= buffer["byteLength"] + 3
    end = 0
    for accessor in content["accessors"]:
        view = content["bufferViews"][accessor["bufferView"]]
        dtype, size = DTYPES[accessor["componentType"]]
        count = accessor["count"] * WIDTHS[accessor["type"]]
        assert view["byteOffset"] == end and end % size == 0 and view["byteLength"] == size * count
        end += view["byteLength"]
        values = np.frombuffer(binary, dtype, count, view["byteOffset"])
        values = values.reshape(accessor["count"], -1)
        if "min" in accessor:
            assert accessor["min"] == values.min(axis=0).tolist()
            assert accessor["max"] == values.max(axis=0).tolist()
    assert end == buffer["byteLength"]
    for mesh in content["meshes"]:
        (primitive,) = mesh["primitives"]
        positions = content["accessors"][primitive["attributes"]["POSITION"]]
        normals = content["accessors"][primitive["attributes"]["NORMAL"]]
        assert {"min", "max"} <= positions.keys() and normals["count"] == positions["count"]
        assert content["accessors"][primitive["indices"]]["type"] == "SCALAR"
    assert content["scenes"][content["scene"]]["nodes"] == list(range(len(parts) + 1))


def test_parts_with_the_same_faces_share_them(parts):
    content, _ = content_of(glb(parts))
    first, second, third = (mesh["primitives"][0]["indices"] for mesh in content["meshes"])
    assert first == second != third and len(content["accessors"]) == 2 + 2 * len(parts)
    copied = [parts[0], replace(parts[1], faces=parts[1].faces.copy())]
    assert len(glb(copied)) > len(glb(parts[:2])) + 4 * parts[0].faces.size - 100


@pytest.mark.parametrize("size", [(640, 480), (480, 640)])
def test_a_camera_of_90_degrees_sees_half_its_height_at_its_focal_length(size):
    """Its angle is that of the height, upright and across."""
    ball = trimesh.creation.icosphere(1)
    part = Part("a", ball.vertices, ball.vertices, np.array(ball.faces), palette(1)[0])
    content, _ = content_of(glb([part], PhotoCamera(size[1] / 2, size)))
    (camera,) = content["cameras"]
    assert camera["type"] == "perspective" and camera["perspective"]["znear"] > 0
    assert camera["perspective"]["yfov"] == pytest.approx(np.pi / 2)
    assert camera["perspective"]["aspectRatio"] == pytest.approx(size[0] / size[1])
    assert content["nodes"][-1] == {"name": "photo_camera", "camera": 0}
    scene = trimesh.load_scene(
        trimesh.util.wrap_as_stream(glb([part], PhotoCamera(size[1] / 2, size))), file_type="glb"
    )
    assert scene.camera.fov[1] == pytest.approx(90)
    assert np.allclose(scene.camera_transform, np.eye(4)), "at the origin, along -z"


def test_srgb_becomes_linear_light():
    """Mid-grey of sRGB, 188 of 255, is half the light; the ends stay."""
    assert srgb_to_linear((0.0, 1.0, 188 / 255)) == pytest.approx((0, 1, 0.5), abs=0.003)
    assert srgb_to_linear((0.04, 0.02, 0.0)) == pytest.approx((0.04 / 12.92, 0.02 / 12.92, 0))
    greys = np.linspace(0, 1, 256)
    linear = np.array([srgb_to_linear((grey, grey, grey))[0] for grey in greys.tolist()])
    assert np.abs(linear_to_srgb(linear) - greys).max() < 1e-6 and (np.diff(linear) > 0).all()


def test_an_obj_counts_from_one():
    corners, faces = np.array([[0.5, 0, 0], [0, 0.7, 0], [0, 0, 0.3]]), np.array([[0, 1, 2]])
    assert obj(corners, faces).splitlines()[0] == "v 0.500000 0.000000 0.000000"
    assert obj(corners, faces).splitlines()[-1] == "f 1 2 3"
