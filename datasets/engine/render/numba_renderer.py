"""One scene to pixels on one CPU core, by compiled loops."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from smpler.datasets.engine.actors import Actor
from smpler.datasets.engine.people import People
from smpler.datasets.engine.render.numba_geometry import (
    depth_map,
    pose_vertices,
    project,
    rasterize,
    vertex_normals,
)
from smpler.datasets.engine.render.numba_shading import backdrop, shade
from smpler.datasets.engine.render.result import Rendering
from smpler.datasets.engine.scenes import Scene
from smpler.datasets.engine.surfaces import (
    SAMPLES,
    SKY_MAP_SIZE,
    SUN_MAP_SIZE,
    WIDEST_FOCAL,
    encode_panorama,
)
from smpler.datasets.engine.textures import NOISE
from smpler.datasets.engine.wardrobe import Panorama
from smpler.utils.image import CROP_SIZE


@dataclass(frozen=True, eq=False)
class Packed:
    """All actors as one mesh."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    source: Int[np.ndarray, "f"]
    """Each face's number in the layers."""
    materials: Int[np.ndarray, "f"]
    actor: Int[np.ndarray, "m"]
    """Of each material; 0 is the subject."""


class NumbaRenderer:
    """Renders scenes of some people in some places."""

    def __init__(self, people: People, panoramas: Sequence[Panorama]):
        self.people = people
        self.panoramas = [encode_panorama(panorama.image) for panorama in panoramas]
        noise = people.textures[people.patterns[NOISE], ..., 0]
        self._detail = noise.astype(np.float32) / 127.5 - 1

    def render(self, scene: Scene, margin: int = 0) -> Rendering:
        """Return what the scene's camera sees, with so many pixels more on every side."""
        packed, layers = self.pack(scene.actors), self.people.layers
        faces = packed.faces
        parts = [part for actor in scene.actors for part in actor.parts]
        looks = (
            np.stack([part.matrix for part in parts]).astype(np.float32),
            np.array([part.highlight for part in parts], np.float32),
            packed.actor,
        )
        surfaces = (
            packed.source,
            layers.uv,
            self.people.textures,
            np.array([part.texture for part in parts]),
            np.array([layers.table[part.layer].cull for part in parts]),
            np.array([layers.table[part.layer].tested for part in parts]),
        )
        framing, light = scene.framing, scene.light
        focal, center = np.float32(framing.focal), (framing.center + margin).astype(np.float32)
        points = project(packed.vertices, SAMPLES * focal, SAMPLES * center)
        size = CROP_SIZE + 2 * margin
        fragments = rasterize(points, faces, packed.materials, surfaces, SAMPLES * size)
        shadows = (
            *shadow_map(packed, light.sun, SUN_MAP_SIZE),
            *shadow_map(packed, scene.ground[:3], SKY_MAP_SIZE),
        )
        normals = vertex_normals(packed.vertices, faces)
        geometry = (packed.vertices, normals, faces, layers.part)
        lamps = tuple(x.astype(np.float32) for x in (light.sh, light.sun, light.sun_color))
        color, alpha, mask, depth, part_map = shade(
            fragments, geometry, packed.materials, surfaces, looks, lamps, shadows, SAMPLES
        )
        around = backdrop(
            self.panoramas[light.panorama],
            light.to_panorama.astype(np.float32),
            np.array([focal, min(focal, WIDEST_FOCAL)], np.float32),
            center,
            scene.ground.astype(np.float32),
            shadows,
            light.shade.astype(np.float32),
            (np.float32(light.detail), self._detail),
            size,
        )
        picture = color + around * (1 - alpha[..., None])
        body = packed.vertices[: len(self.people.body.v_template)]
        return Rendering(picture, alpha, mask, depth, part_map, body)

    def pack(self, actors: Sequence[Actor]) -> Packed:
        """Pose all actors and join their layers, without the body that clothes hide."""
        layers = self.people.layers
        vertices, faces, source, materials, owner = [], [], [], [], []
        num_vertices = 0
        for number, actor in enumerate(actors):
            betas, transforms = actor.betas.astype(np.float32), actor.transforms.astype(np.float32)
            feature = (actor.rotmat[1:] - np.eye(3)).reshape(-1, 9).astype(np.float32)
            for part in actor.parts:
                layer = layers.table[part.layer]
                rows = slice(layer.first_vertex, layer.first_vertex + layer.num_vertices)
                arrays = (layers.vertex[name][rows] for name in layers.vertex)
                vertices.append(
                    pose_vertices(*arrays, self.people.correctives, betas, feature, transforms)
                )
                chosen = self.people.visible_faces(part.layer, actor.hiding)
                faces.append(layers.faces[chosen] + np.int32(num_vertices))
                source.append(chosen)
                materials.append(np.full(len(chosen), len(owner), np.int32))
                owner.append(number)
                num_vertices += layer.num_vertices
        joined = (np.concatenate(x) for x in (vertices, faces, source, materials))
        return Packed(*joined, np.array(owner))


def shadow_map(
    packed: Packed, towards: Float[np.ndarray, "3"], size: int
) -> tuple[Float[np.ndarray, "3 4"], Float[np.ndarray, "{size} {size}"]]:
    """Return the depths that a distant light sees, and the map to them from the camera frame.

    Args:
        towards: unit vector from the scene to the light.
        size: pixels of the map's side.
    """
    to_map = shadow_camera(packed.vertices, towards, size)
    return to_map, depth_map(packed.vertices @ to_map[:, :3].T + to_map[:, 3], packed.faces, size)


def shadow_camera(
    vertices: Float[np.ndarray, "n 3"], towards: Float[np.ndarray, "3"], size: int
) -> Float[np.ndarray, "3 4"]:
    """Return the orthographic map to pixels and depth in which a light sees all vertices."""
    across = np.cross(towards, [0.02, 0.1, 1.0])
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(towards, across), -towards])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, reach = (low + high) / 2, np.linalg.norm(high - low) / 2
    axes[:2] *= size / (2 * reach)
    offset = np.array([size / 2, size / 2, 0]) - axes @ middle
    return np.column_stack([axes, offset]).astype(np.float32)
