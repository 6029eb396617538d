"""Scenes as one batch of arrays, and these as one block that goes to the device."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from smpler.datasets.engine.people import People
from smpler.datasets.engine.photo import Photo, blur_kernel
from smpler.datasets.engine.scenes import Scene
from smpler.datasets.engine.surfaces import WIDEST_FOCAL

OF_PHOTO = ("metering", "exposure", "white_balance", "contrast", "noise", "gains")
OF_FRAMING = ("center", "rotation", "borders", "box_center", "scale")
OF_LIGHT = ("sh", "sun", "sun_color", "shade", "to_panorama", "detail")
"""Fields of `Photo`, `Framing` and `Light` that a batch has under the same names."""

SceneBatch = dict[str, Tensor]
"""b scenes, whose a actors wear m layers in all; the first actor of a scene is its subject.

| keys | shape | meaning |
|---|---|---|
| betas, feature, transforms | (a, 10), (a, 207), (a, 24, 3, 4) | shape, pose minus rest, skeleton |
| hiding | (a, g) bool | garments that hide body under them |
| layer, texture, actor, item | (m,) int64 | a layer's number, texture, actor and scene |
| matrix, highlight, is_subject | (m, 3, 3), (m,), (m,) bool | look; is it the subject's? |
| first_layer | (b,) int64 | which of the m is the subject's body |
| focal | (b, 2) | pixels; of the people, and of the surroundings |
| ground | (b, 4) | as in `smpler.datasets.engine.scenes.Scene` |
| panorama, names of OF_LIGHT | (b,) int64, (b, ...) | as in `smpler.datasets.engine.scenes.Light` |
| names of OF_PHOTO | (b, c, 1, 1) | as in `smpler.datasets.engine.photo.Photo` |
| blur | (b, 2, 13) | kernels along x and y |
| noise_offset, quality | (b, 2) int64, (b,) int64 | as in `smpler.datasets.engine.photo.Photo` |
| names of OF_FRAMING | (b, ...) | as in `smpler.datasets.engine.framing.Framing` |
| pose, subject_betas | (b, 72), (b, 10) | labels |
| index | (b,) int64 | number in a stream, where `draw_scenes` drew it |

All others are float32.
"""

ALIGNMENT = 16
"""Bytes; each array of a block begins at a multiple of it."""


class MeshSizes(NamedTuple):
    """How large the mesh of all actors of a batch is; a GPU need not be asked for it."""

    num_vertices: int
    num_faces: int
    num_drawn: int
    """Faces without those of bodies that clothes hide."""


class _Place(NamedTuple):
    """An array within a block."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Byte at which it begins."""


@dataclass(frozen=True, eq=False)
class PackedScenes:
    """A batch of scenes as one block of bytes.

    As such it goes from the process that draws it to the device: one shared block, one copy.
    """

    block: UInt8[Tensor, "n"]
    places: Mapping[str, _Place]
    sizes: MeshSizes

    @classmethod
    def of(cls, scenes: SceneBatch, sizes: MeshSizes) -> "PackedScenes":
        """Copy the arrays of a batch on the CPU into one block."""
        places, end = {}, 0
        for name, x in scenes.items():
            places[name] = _Place(x.dtype, tuple(x.shape), end)
            end += math.ceil(x.nbytes / ALIGNMENT) * ALIGNMENT
        packed = cls(torch.zeros(end, dtype=torch.uint8), places, sizes)
        for name, view in packed.arrays().items():
            view.copy_(scenes[name])
        return packed

    def arrays(self) -> SceneBatch:
        """Return the arrays; they share the block's memory."""
        return {
            name: self.block[start : start + math.prod(shape) * dtype.itemsize]
            .view(dtype)
            .view(shape)
            for name, (dtype, shape, start) in self.places.items()
        }

    def pin_memory(self) -> "PackedScenes":
        """Return it in memory from which a GPU copies while the CPU goes on."""
        return replace(self, block=self.block.pin_memory())

    def to(self, device: torch.device) -> "PackedScenes":
        """Return it on a device; from pinned memory, it may still be on its way there."""
        return replace(self, block=self.block.to(device, non_blocking=True))


def mesh_sizes(scenes: Sequence[Scene], people: People) -> MeshSizes:
    """Return the sizes of the mesh that all actors of some scenes are."""
    hidden_faces = np.asarray(people.hidden_faces)
    num_vertices = num_faces = num_hidden = 0
    for actor in (actor for scene in scenes for actor in scene.actors):
        for part in actor.parts:
            layer = people.layers.table[part.layer]
            num_vertices, num_faces = num_vertices + layer.num_vertices, num_faces + layer.num_faces
            if part.layer == 0:  # the body
                num_hidden += int(hidden_faces[list(actor.hiding)].any(axis=0).sum())
    return MeshSizes(num_vertices, num_faces, num_faces - num_hidden)


def pack_scenes(scenes: Sequence[Scene], num_garments: int) -> SceneBatch:
    """Return scenes as one batch, on the CPU.

    Args:
        num_garments: rows of `People.hidden_faces`.
    """
    actors = [actor for scene in scenes for actor in scene.actors]
    parts = [part for actor in actors for part in actor.parts]
    lights = [scene.light for scene in scenes]
    hiding = np.zeros((len(actors), num_garments), bool)
    for row, actor in zip(hiding, actors, strict=True):
        row[list(actor.hiding)] = True
    # (m,) and (a,): parts are listed actor by actor, actors scene by scene
    actor_of_part = np.arange(len(actors)).repeat([len(actor.parts) for actor in actors])
    item_of_actor = np.arange(len(scenes)).repeat([len(scene.actors) for scene in scenes])
    item_of_part = item_of_actor[actor_of_part]
    first_actor = np.searchsorted(item_of_actor, np.arange(len(scenes)))
    identity = np.eye(3)
    floats = {
        "betas": [actor.betas for actor in actors],
        "feature": [(actor.rotmat[1:] - identity).ravel() for actor in actors],
        "transforms": [actor.transforms for actor in actors],
        "matrix": [part.matrix for part in parts],
        "highlight": [part.highlight for part in parts],
        "ground": [scene.ground for scene in scenes],
        **{name: [getattr(light, name) for light in lights] for name in OF_LIGHT},
    }
    others = {
        "hiding": hiding,
        "layer": np.array([part.layer for part in parts]),
        "texture": np.array([part.texture for part in parts]),
        "actor": actor_of_part,
        "item": item_of_part,
        "is_subject": np.isin(actor_of_part, first_actor),
        "first_layer": np.searchsorted(actor_of_part, first_actor),
        "panorama": np.array([light.panorama for light in lights]),
    }
    arrays = {name: np.asarray(rows, np.float32) for name, rows in floats.items()} | others
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return tensors | pack_subjects(scenes) | pack_photos([scene.photo for scene in scenes])


def pack_subjects(scenes: Sequence[Scene], dtype: type = np.float32) -> SceneBatch:
    """Return pose and shape of the scenes' subjects, and how they are framed, as a batch."""
    subjects = [scene.actors[0] for scene in scenes]
    framings = [scene.framing for scene in scenes]
    focal = np.array([framing.focal for framing in framings])
    rows = {
        "focal": np.stack([focal, np.minimum(focal, WIDEST_FOCAL)], axis=1),
        "pose": [subject.pose().ravel() for subject in subjects],
        "subject_betas": [subject.betas for subject in subjects],
        **{name: [getattr(framing, name) for framing in framings] for name in OF_FRAMING},
    }
    return {name: torch.from_numpy(np.asarray(values, dtype)) for name, values in rows.items()}


def pack_photos(photos: Sequence[Photo]) -> SceneBatch:
    """Return what cameras do to the light, as a batch."""

    def column(name: str) -> np.ndarray:
        """Return a field of all photos, which broadcasts with images (b, 3, s, s)."""
        values = np.array([getattr(photo, name) for photo in photos], np.float32)
        return values.reshape(len(photos), -1, 1, 1)  # (b,) or (b, 3) -> (b, 1 or 3, 1, 1)

    arrays = {name: column(name) for name in OF_PHOTO}
    arrays |= {
        "blur": np.array([[blur_kernel(sigma) for sigma in photo.blur] for photo in photos]),
        "noise_offset": np.array([photo.noise_offset for photo in photos]),
        "quality": np.array([photo.quality for photo in photos]),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
