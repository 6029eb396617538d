"""Meshes as Wavefront .obj and binary glTF 2.0 (.glb); tests read them back with trimesh.

trimesh itself takes as long to import as the network takes to run, for two pages of code.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from smpler.utils.drawing.visualize import Color

ROUGHNESS = 0.8
Z_NEAR = 0.05
"""Distance from which on a viewer shows what stands before a camera, metres."""
# Numbers of the glTF 2.0 specification.
FLOAT, UNSIGNED_INT = 5126, 5125
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
JSON_CHUNK, BINARY_CHUNK = b"JSON", b"BIN\0"


@dataclass(frozen=True)
class Part:
    """A mesh of a .glb file: metres, y up."""

    name: str
    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    """Of the vertices, of length 1."""
    faces: Int[np.ndarray, "f 3"]
    """Corners counter-clockwise seen from outside; parts that hold the same array share it."""
    color: Color
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Where its origin stands."""


@dataclass(frozen=True)
class PhotoCamera:
    """The camera of a photo whose middle is the principal point: at the origin, y up, along -z."""

    focal_length: float
    """Pixels."""
    image_size: tuple[int, int]
    """Width and height of the photo, pixels."""


def obj(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> str:
    """Return a mesh as the text of an .obj file, 6 decimals; its indices begin with 1."""
    corners = "v %.6f %.6f %.6f\n" * len(vertices) % tuple(vertices.ravel().tolist())
    triangles = "f %d %d %d\n" * len(faces) % tuple((faces + 1).ravel().tolist())
    return corners + triangles


def glb(parts: Sequence[Part], camera: PhotoCamera | None = None) -> bytes:
    """Return a scene as a .glb file: for each part a node, a mesh and a material of its name.

    Args:
        parts: at least one.
        camera: becomes the node `photo_camera`; None leaves it out.
    """
    binary = _Binary()
    indices = {}
    for part in parts:
        if id(part.faces) not in indices:
            flat = part.faces.astype("<u4").reshape(-1)
            indices[id(part.faces)] = binary.add(flat, INDEX_BUFFER, UNSIGNED_INT, "SCALAR")
    meshes = [
        {"name": part.name, "primitives": [_primitive(binary, part, indices, number)]}
        for number, part in enumerate(parts)
    ]
    content = {
        "asset": {"version": "2.0", "generator": "SMPLer"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(parts) + (camera is not None)))}],
        "nodes": [
            {"name": part.name, "mesh": number, "translation": list(part.translation)}
            for number, part in enumerate(parts)
        ],
        "meshes": meshes,
        "materials": [_material(part) for part in parts],
        "buffers": [{"byteLength": len(binary.data)}],
        "bufferViews": binary.views,
        "accessors": binary.accessors,
    }
    if camera is not None:
        content["nodes"].append({"name": "photo_camera", "camera": 0})
        content["cameras"] = [_camera(camera)]
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = _chunk(JSON_CHUNK, text) + _chunk(BINARY_CHUNK, bytes(binary.data))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def srgb_to_linear(color: Color) -> tuple[float, float, float]:
    """Return the linear light of an sRGB colour, both in [0, 1] (IEC 61966-2-1)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color
    )
    return red, green, blue


class _Binary:
    """The arrays of a .glb file, and where each one lies."""

    def __init__(self):
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def add(self, array: np.ndarray, use: int, number: int, entry: str, **limits: list) -> int:
        """Append an array of four-byte numbers; return its number among the accessors.

        Args:
            array: its first axis counts the entries.
            use: VERTEX_BUFFER or INDEX_BUFFER.
            number: FLOAT or UNSIGNED_INT.
            entry: what an entry is, in glTF's words.
            limits: min and max of the entries, which positions must have.
        """
        place = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        accessor = {"bufferView": len(self.views), "componentType": number, "type": entry}
        self.views.append(place | {"target": use})
        self.accessors.append(accessor | {"count": len(array)} | limits)
        self.data += array.tobytes()
        return len(self.accessors) - 1


def _primitive(binary: _Binary, part: Part, indices: dict[int, int], material: int) -> dict:
    """Append a part's vertices and normals; return its mesh in glTF's words."""
    vertices = part.vertices.astype("<f4")
    limits = {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
    attributes = {
        "POSITION": binary.add(vertices, VERTEX_BUFFER, FLOAT, "VEC3", **limits),
        "NORMAL": binary.add(part.normals.astype("<f4"), VERTEX_BUFFER, FLOAT, "VEC3"),
    }
    return {"attributes": attributes, "indices": indices[id(part.faces)], "material": material}


def _material(part: Part) -> dict:
    """Return a part's material; glTF's colours are linear."""
    surface = {
        "baseColorFactor": [*srgb_to_linear(part.color), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": ROUGHNESS,
    }
    return {"name": part.name, "pbrMetallicRoughness": surface}


def _camera(camera: PhotoCamera) -> dict:
    """Return a photo's camera; `yfov` is the angle from its lower to its upper edge, radians."""
    width, height = camera.image_size
    perspective = {
        "yfov": 2 * math.atan2(height / 2, camera.focal_length),
        "aspectRatio": width / height,
        "znear": Z_NEAR,
    }
    return {"name": "photo_camera", "type": "perspective", "perspective": perspective}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data
