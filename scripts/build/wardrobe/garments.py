"""MakeHuman's clothes and hair: read, worn by everyone, fitted to the open body's betas."""

import json
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int, UInt8

from scripts.build.wardrobe.people import FittedPeople
from scripts.build.wardrobe.sources import DATA, Files, pictures

OCCLUSION_POWER = 0.7
"""Exponent of the baked ambient occlusion that darkens a texture: the renderer adds shadows."""


@dataclass(frozen=True, eq=False)
class Design:
    """A garment as its author made it: each vertex follows three vertices of the base mesh."""

    references: Int[np.ndarray, "n 3"]
    weights: Float[np.ndarray, "n 3"]
    """Of the references; they sum to 1, and may be negative."""
    offsets: Float[np.ndarray, "n 3"]
    """From the weighted references, decimetres; x left, y up, z forward."""
    vertices: Float[np.ndarray, "n 3"]
    """On the person for whom it was made, decimetres."""
    faces: Int[np.ndarray, "f 3"]
    uv_table: Float[np.ndarray, "m 2"]
    """(0, 0) is the texture's top-left corner, v down."""
    uv_faces: Int[np.ndarray, "f 3"]
    covers: Bool[np.ndarray, "19158"]
    """Vertices of the base mesh that its author hid under it."""
    texture: UInt8[np.ndarray, "s s 4"]

    def wear(self, vertices: Float[np.ndarray, "p v 3"]) -> Float[np.ndarray, "p n 3"]:
        """Put it on people: the offsets grow with the referenced part of the body."""
        base = np.zeros((len(vertices), *self.offsets.shape))
        for reference, weight in zip(self.references.T, self.weights.T, strict=True):
            base += weight[:, None] * vertices[:, reference]
        edges = np.concatenate([self.faces[:, :2], self.faces[:, 1:]])
        designed = _total_length(self.vertices - self.offsets, edges)
        growth = _total_length(base, edges) / designed
        return base + growth[:, None, None] * self.offsets

    def skinning(self, weights: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        """Skin it as its references are: (n, bones) weights, rows sum to 1."""
        parts = np.clip(self.weights, 0, None)
        mixed = sum(
            scipy.sparse.diags_array(part) @ weights[reference]
            for reference, part in zip(self.references.T, parts.T, strict=True)
        )
        return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / mixed.sum(axis=1)) @ mixed)


def read_design(files: Files, group: str, name: str) -> Design:
    """Read a garment of the package; `group` is its folder there, `clothes` or `hair`."""
    folder = f"{DATA}/proxies/{group}/{name}"
    geometry = files[f"{folder}/{name}.json"]
    content = json.loads(geometry)
    faces, uv_faces = _triangles(content["faces"])
    return Design(
        references=np.array(content["ref_vIdxs"]),
        weights=np.array(content["weights"], dtype=np.float64),
        offsets=np.array(content["offsets"], dtype=np.float64),
        vertices=np.array(content["vertices"], dtype=np.float64).reshape(-1, 3),
        faces=faces,
        uv_table=np.array(content["uvs"][0]).reshape(-1, 2) * (1, -1) + (0, 1),
        uv_faces=uv_faces,
        covers=np.array(content["metadata"]["deleteVerts"], dtype=bool),
        texture=_texture([files[f"{folder}/{picture}"] for picture in pictures(geometry)]),
    )


@dataclass(frozen=True, eq=False)
class Fit:
    """A garment in T-pose as a linear function of the open body's betas; metres."""

    v_template: Float[np.ndarray, "n 3"]
    shapedirs: Float[np.ndarray, "n 3 10"]
    error: float
    """Mean distance [mm] from the garment on people whom ten betas do not describe exactly."""
    skinning: scipy.sparse.csr_array
    """(n, bones) weights of MakeHuman's bones."""


def fit(design: Design, crowd: FittedPeople) -> Fit:
    """Put it on everyone, and fit its vertices to their betas."""
    skinning = design.skinning(crowd.bones.weights)
    return Fit(*crowd.fit_layer(design.wear(crowd.people.vertices), skinning), skinning)


def _total_length(points: Float[np.ndarray, "*p n 3"], edges: Int[np.ndarray, "e 2"]) -> np.ndarray:
    ends = points[..., edges, :]
    return np.linalg.norm(ends[..., 0, :] - ends[..., 1, :], axis=-1).sum(axis=-1)


def _triangles(stream: list[int]) -> tuple[Int[np.ndarray, "f 3"], Int[np.ndarray, "f 3"]]:
    """Read three.js's list of faces (JSON model format 3.1): corners, and their places in `uvs`.

    Each face begins with bits that say what follows its corners; quads are cut in two.
    """
    faces, uv_faces, place = [], [], 0
    while place < len(stream):
        bits = stream[place]
        count = 4 if bits & 1 else 3
        corners = stream[place + 1 : place + 1 + count]
        place += 1 + count + (bits >> 1 & 1)  # a material
        places = stream[place : place + count]
        assert bits & 0b1100 == 0b1000 and bits < 64, f"a face of kind {bits}"
        place += count + (bits >> 4 & 1) + count * (bits >> 5 & 1)  # a normal, the corners' normals
        for second in range(1, count - 1):
            faces.append([corners[0], *corners[second : second + 2]])
            uv_faces.append([places[0], *places[second : second + 2]])
    return np.array(faces), np.array(uv_faces)


def _texture(files: list[bytes]) -> UInt8[np.ndarray, "s s 4"]:
    """Decode a texture, RGBA, and darken it by the ambient occlusion that may follow it."""
    diffuse, *occlusion = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in files
    )
    if diffuse.shape[2] == 3:
        diffuse = cv2.cvtColor(diffuse, cv2.COLOR_BGR2BGRA)
    for shade in occlusion:
        light = (shade[..., :1] / 255) ** OCCLUSION_POWER
        diffuse[..., :3] = np.round(diffuse[..., :3] * light)
    return cv2.cvtColor(diffuse, cv2.COLOR_BGRA2RGBA)
