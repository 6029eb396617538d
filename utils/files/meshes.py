"""Meshes as Wavefront .obj and binary glTF 2.0 (.glb); tests read them back with trimesh.

trimesh itself takes as long to import as the network takes to run, for two pages of code.
Meshes that joints move: `smpler.utils.files.skinned`.
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
FLOAT, UNSIGNED_INT, UNSIGNED_BYTE = 5126, 5125, 5121
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
    binary = Binary()
    content = {
        "scenes": [{"nodes": list(range(len(parts)))}],
        "nodes": [
            {"name": part.name, "mesh": number, "translation": list(part.translation)}
            for number, part in enumerate(parts)
        ],
        "meshes": [
            {"name": part.name, "primitives": [primitive(binary, part, number)]}
            for number, part in enumerate(parts)
        ],
        "materials": [material(part.name, part.color) for part in parts],
    }
    return container(content, binary, camera)


def container(content: dict, binary: "Binary", camera: PhotoCamera | None) -> bytes:
    """Return a .glb file.

    Args:
        content: in glTF's words, without the arrays; `scenes` holds one.
        binary: the arrays.
        camera: becomes the node `photo_camera`; None leaves it out.
    """
    content = {"asset": {"version": "2.0", "generator": "SMPLer"}, "scene": 0} | content
    content["buffers"] = [{"byteLength": len(binary.data)}]
    content |= {"bufferViews": binary.views, "accessors": binary.accessors}
    if camera is not None:
        content["scenes"][0]["nodes"].append(len(content["nodes"]))
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


class Binary:
    """The arrays of a .glb file, and where each one lies."""

    def __init__(self):
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self._shared: dict[int, tuple[np.ndarray, int]] = {}

    def add(
        self, array: np.ndarray, number: int, entry: str, use: int | None = None, **limits: list
    ) -> int:
        """Append an array whose entries take whole fours of bytes; return its accessor's number.

        Args:
            array: its first axis counts the entries.
            number: FLOAT, UNSIGNED_INT or UNSIGNED_BYTE.
            entry: what an entry is, in glTF's words.
            use: VERTEX_BUFFER or INDEX_BUFFER; None for other arrays.
            limits: min and max of the entries, which positions and times must have.
        """
        place = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        accessor = {"bufferView": len(self.views), "componentType": number, "type": entry}
        self.views.append(place if use is None else place | {"target": use})
        self.accessors.append(accessor | {"count": len(array)} | limits)
        self.data += array.tobytes()
        return len(self.accessors) - 1

    def add_once(self, array: np.ndarray, number: int, entry: str, use: int) -> int:
        """Append an array as `add` does, unless the same one is there already."""
        if id(array) not in self._shared:
            kind = {FLOAT: "<f4", UNSIGNED_INT: "<u4", UNSIGNED_BYTE: "u1"}[number]
            flat = array.reshape(-1) if entry == "SCALAR" else array
            self._shared[id(array)] = array, self.add(flat.astype(kind), number, entry, use)
        return self._shared[id(array)][1]

    def add_limited(
        self, array: Float[np.ndarray, "n *k"], entry: str, use: int | None = None
    ) -> int:
        """Append numbers in float32, with their limits."""
        array = array.astype("<f4")
        lowest, highest = array.min(axis=0), array.max(axis=0)
        limits = {"min": np.atleast_1d(lowest).tolist(), "max": np.atleast_1d(highest).tolist()}
        return self.add(array, FLOAT, entry, use, **limits)


def primitive(binary: Binary, part: Part, number: int) -> dict:
    """Append a part's vertices, normals and faces; return its mesh in glTF's words.

    Args:
        binary: what they are appended to.
        part: of the mesh.
        number: of its material.
    """
    indices = binary.add_once(part.faces, UNSIGNED_INT, "SCALAR", INDEX_BUFFER)
    attributes = {
        "POSITION": binary.add_limited(part.vertices, "VEC3", VERTEX_BUFFER),
        "NORMAL": binary.add(part.normals.astype("<f4"), FLOAT, "VEC3", VERTEX_BUFFER),
    }
    return {"attributes": attributes, "indices": indices, "material": number}


def material(name: str, color: Color) -> dict:
    """Return a material in glTF's words; its colours are linear."""
    surface = {
        "baseColorFactor": [*srgb_to_linear(color), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": ROUGHNESS,
    }
    return {"name": name, "pbrMetallicRoughness": surface}


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
