"""Renders one scene on one CPU core, by compiled loops."""

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
    ASIDE,
    SAMPLES,
    SKY_MAP_SIZE,
    SUN_MAP_SIZE,
    WIDEST_FOCAL,
    encode_panorama,
)
from smpler.datasets.engine.wardrobe import Panorama
from smpler.utils.image import CROP_SIZE


@dataclass(frozen=True, eq=False)
class Packed:
    """All actors as one mesh of n vertices, f faces and m layers, each with its own material."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    source: Int[np.ndarray, "f"]
    """Each face's number in the layers."""
    materials: Int[np.ndarray, "f"]
    """Each face's layer among the m."""
    actor: Int[np.ndarray, "m"]
    """Actor that wears a layer; 0 is the subject."""


class NumbaRenderer:
    """Renders scenes of some people in some places."""

    def __init__(self, people: People, panoramas: Sequence[Panorama]):
        self.people = people
        self.panoramas = [encode_panorama(panorama.image) for panorama in panoramas]
        self._detail = people.noise_pattern()

    def render(self, scene: Scene, margin: int = 0) -> Rendering:
        """Return what the scene's camera sees, with `margin` more pixels on every side."""
        packed, layers = self.pack(scene.actors), self.people.layers
        faces = packed.faces
        parts = [part for actor in scene.actors for part in actor.parts]  # m, as in `packed`
        looks = (  # (m, 3, 3), (m,), (m,)
            np.stack([part.matrix for part in parts]).astype(np.float32),
            np.array([part.highlight for part in parts], np.float32),
            packed.actor,
        )
        surfaces = (
            packed.source,  # (f,)
            layers.uv,  # (l, 3, 2): of all layers' faces
            self.people.textures,  # (t, s, s, 4)
            np.array([part.texture for part in parts]),
            np.array([layers.table[part.layer].cull for part in parts]),
            np.array([layers.table[part.layer].tested for part in parts]),
        )
        framing, light = scene.framing, scene.light
        focal, center = np.float32(framing.focal), (framing.center + margin).astype(np.float32)
        # A picture of (size, size) is rasterised at (SAMPLES * size, SAMPLES * size).
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
        body = packed.vertices[: len(self.people.body.v_template)]  # the subject's first layer
        return Rendering(picture, alpha, mask, depth, part_map, body)

    def pack(self, actors: Sequence[Actor]) -> Packed:
        """Pose all actors and join their layers, without the faces of bodies that clothes hide."""
        layers = self.people.layers
        vertices, faces, source, materials, owner = [], [], [], [], []
        num_vertices = 0
        for number, actor in enumerate(actors):
            betas, transforms = actor.betas.astype(np.float32), actor.transforms.astype(np.float32)
            # (23, 3, 3) -> (23, 9): rotations minus identity
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
    """Return a distant light's shadow map: how to get there from the camera frame, and depths.

    Args:
        towards: unit vector from the scene to the light.
        size: pixels of the map's side.
    """
    to_map = shadow_camera(packed.vertices, towards, size)
    return to_map, depth_map(packed.vertices @ to_map[:, :3].T + to_map[:, 3], packed.faces, size)


def shadow_camera(
    vertices: Float[np.ndarray, "n 3"], towards: Float[np.ndarray, "3"], size: int
) -> Float[np.ndarray, "3 4"]:
    """Return an affine map to pixels and depth of an orthographic camera that sees all vertices."""
    # Rows of `axes`: right and down in the picture, and away from the light.
    across = np.cross(towards, ASIDE)
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(towards, across), -towards])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, reach = (low + high) / 2, np.linalg.norm(high - low) / 2
    axes[:2] *= size / (2 * reach)
    offset = np.array([size / 2, size / 2, 0]) - axes @ middle
    return np.column_stack([axes, offset]).astype(np.float32)
