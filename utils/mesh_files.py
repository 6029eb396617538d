"""Meshes as Wavefront .obj and binary glTF 2.0 (.glb); tests read them back with trimesh.

trimesh itself takes as long to import as the network takes to run, for one page of code.
"""

import json
import struct

import numpy as np
from jaxtyping import Float, Int

MATERIAL = {
    "baseColorFactor": [0.93, 0.68, 0.62, 1.0],
    "metallicFactor": 0.0,
    "roughnessFactor": 0.8,
}
# Numbers of the glTF 2.0 specification.
FLOAT, UNSIGNED_INT = 5126, 5125
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
JSON_CHUNK, BINARY_CHUNK = b"JSON", b"BIN\0"


def obj(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> str:
    """Return a mesh as the text of an .obj file, 6 decimals; its indices begin with 1."""
    corners = "v %.6f %.6f %.6f\n" * len(vertices) % tuple(vertices.ravel().tolist())
    triangles = "f %d %d %d\n" * len(faces) % tuple((faces + 1).ravel().tolist())
    return corners + triangles


def glb(
    vertices: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
) -> bytes:
    """Return a mesh as a .glb file.

    Args:
        vertices: metres, y up.
        normals: of the vertices, of length 1.
        faces: corners counter-clockwise seen from outside.
    """
    vertices = vertices.astype("<f4")
    bounds = {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
    # array, its use, type of a number, type and count of entries
    parts = [
        (vertices, VERTEX_BUFFER, FLOAT, "VEC3", len(vertices), bounds),
        (normals.astype("<f4"), VERTEX_BUFFER, FLOAT, "VEC3", len(normals), {}),
        (faces.astype("<u4"), INDEX_BUFFER, UNSIGNED_INT, "SCALAR", faces.size, {}),
    ]
    views, accessors, binary = [], [], b""
    for array, use, number, entry, count, extra in parts:
        accessor = {"bufferView": len(views), "componentType": number, "type": entry}
        accessors.append(accessor | {"count": count} | extra)
        data = array.tobytes()  # four-byte numbers, so that each array begins at a multiple of four
        place = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(data), "target": use}
        views.append(place)
        binary += data
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2, "material": 0}
    content = {
        "asset": {"version": "2.0", "generator": "SMPLer"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": MATERIAL}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = _chunk(JSON_CHUNK, text) + _chunk(BINARY_CHUNK, binary)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data
