"""A wardrobe made of the open body itself: small, made in a second, no pack is read."""

import numpy as np

from smpler.datasets.engine.wardrobe import Garment, Panorama, Skin, Wardrobe
from smpler.models.body import Body


def garment(body: Body, name: str, kind: str, suits: str, low: float, high: float) -> Garment:
    """The body's surface between two heights at rest, a centimetre farther out."""
    heights = body.v_template[body.faces][..., 1]
    chosen = (heights > low).all(axis=1) & (heights < high).all(axis=1)
    used, faces = np.unique(body.faces[chosen], return_inverse=True)
    corners = body.v_template[body.faces]
    normals = np.zeros_like(body.v_template)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.add.at(normals, body.faces.ravel(), np.repeat(face_normals, 3, axis=0))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    order = np.argsort(-body.lbs_weights[used], axis=1)[:, :4]
    rng = np.random.default_rng(len(name))
    return Garment(
        name=name,
        kind=kind,
        suits=suits,
        v_template=body.v_template[used] + np.float32(0.01) * normals[used],
        shapedirs=body.shapedirs[used],
        lbs_indices=order,
        lbs_weights=np.take_along_axis(body.lbs_weights[used], order, axis=1),
        anchor=used,
        faces=faces.reshape(-1, 3),
        uv=rng.random((chosen.sum(), 3, 2)).astype(np.float32),
        texture=rng.integers(60, 256, (64, 64, 4)).astype(np.uint8),
        hidden_faces=chosen,
    )


def wardrobe(body: Body) -> Wardrobe:
    """For each split an outfit, hair with holes, a skin a sex and a place; shoes and hats for both.

    What `smpler.datasets.engine.wardrobe.HELD_OUT` names belongs to validation.
    """
    rng = np.random.default_rng(0)
    uv = (body.v_template[body.faces][..., :2] * [0.4, -0.4] + 0.5).astype(np.float32)
    skins = [("plain_male", "male"), ("plain_female", "female")]
    skins += [("middleage_african_male", "male"), ("old_caucasian_female", "female")]
    return Wardrobe(
        outfits=(
            garment(body, "suit", "outfit", "both", -0.8, 0.35),
            garment(body, "male_casualsuit03", "outfit", "both", -0.5, 0.4),
        ),
        shoes=(garment(body, "shoes", "shoes", "both", -2.0, -0.87),),
        hair=tuple(garment(body, name, "hair", "both", 0.66, 2) for name in ("hair", "short03")),
        hats=(garment(body, "hat", "hat", "both", 0.68, 2.0),),
        skins=tuple(
            Skin(name, suits, rng.integers(90, 200, (64, 64, 3)).astype(np.uint8))
            for name, suits in skins
        ),
        panoramas=tuple(panorama(rng, name) for name in ("meadow", "street", "bridge", "park")),
        body_uv=uv,
    )


def panorama(rng: np.random.Generator, name: str) -> Panorama:
    """A bright sky over a dark ground, and a sun."""
    sun = rng.uniform([-1, 0.5, -1], [1, 1.5, 1]).astype(np.float32)
    ambient = rng.normal(0, 0.1, (9, 3)).astype(np.float32)
    ambient[0] = 2
    image = np.linspace(1, 0.2, 16)[:, None, None] * rng.uniform(0.3, 1, (16, 32, 3))
    color = np.array([1.5, 1.4, 1.2], np.float32)
    return Panorama(name, image.astype(np.float32), sun / np.linalg.norm(sun), color, ambient)


class Poses:
    """Small rotations of all joints, upright: in place of `poses.sampler.PoseSampler`."""

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        pose = rng.normal(0, 0.25, (24, 3))
        pose[0] = 0
        return pose
