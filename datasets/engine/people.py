"""Dressed people: everyone who can appear, and how one of them is drawn at random.

World frame: metres, x to the left of a person at rest, y up, z forward.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.actors import Actor, Part, skeleton
from smpler.datasets.engine.layers import (
    BodyArrays,
    Layers,
    body_mesh,
    connected_components,
    farthest_points,
    sparse_correctives,
)
from smpler.datasets.engine.objects import object_meshes
from smpler.datasets.engine.surfaces import LUMINANCE, srgb_to_linear
from smpler.datasets.engine.textures import NOISE, fit_texture, pattern_textures
from smpler.datasets.engine.wardrobe import Garment, Wardrobe
from smpler.utils.joints import NUM_BETAS, NUM_JOINTS

WAIST = 0.0
"""Pieces of an outfit whose middle is higher than this at rest, in metres, are tops."""
NUM_PROBES = 256
"""Vertices that stand for the whole body when its extent is measured."""
MAX_BETA = 2.5
"""Shape coefficients are clipped to this, positive or negative."""
SEX_BETA = 2
"""Index of the open body's coefficient that goes from male (-) to female (+)."""
HAT_SHARE, PATTERN_SHARE = 0.06, 0.12
"""How often a person wears a hat, and how often an outfit has a pattern."""
BALD_SHARE = {"male": 0.1, "female": 0.01}
"""How often a person without a hat has no hair."""

HAIR_COLORS = np.array(
    [
        [0.010, 0.008, 0.007],  # black
        [0.030, 0.017, 0.010],  # dark brown
        [0.085, 0.045, 0.022],  # brown
        [0.230, 0.130, 0.055],  # dark blond
        [0.420, 0.290, 0.150],  # blond
        [0.200, 0.055, 0.020],  # red
        [0.350, 0.340, 0.330],  # grey
    ]
)
"""Linear light."""
HAIR_SHARES = np.array([0.27, 0.25, 0.18, 0.1, 0.07, 0.05, 0.08])


def dye(color: np.ndarray, brightness: float) -> Float[np.ndarray, "3 3"]:
    """Return the colour matrix that keeps a texture's luminance and gives it one linear colour."""
    return np.outer(color / max(brightness, 0.02), LUMINANCE)


def turned_hue(angle: float, saturation: float, gain: float) -> Float[np.ndarray, "3 3"]:
    """Return the colour matrix that turns hues about the grey axis and scales saturation."""
    turn = Rotation.from_rotvec(np.full(3, angle / np.sqrt(3))).as_matrix()
    grey = np.tile(LUMINANCE, (3, 1))
    return gain * (saturation * turn + (1 - saturation) * grey)


def random_color(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Draw a linear colour of cloth: any hue, often grey, dark or bright."""
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    saturation, value = rng.beta(1.0, 1.6), rng.uniform(0.12, 0.9)
    return srgb_to_linear(value * (1 - saturation * (0.5 - 0.5 * np.cos(hue))))


@dataclass(frozen=True)
class Clothing:
    """A garment among the layers."""

    garment: Garment
    number: int
    """Row of `People.hidden_faces`."""
    texture: int
    """Index into `People.textures`."""
    layers: tuple[int, ...]
    """An outfit's tops and trousers are layers of their own."""


class People:
    """Who can appear: the body, everything to wear, and simple objects.

    Args:
        body: the open body, which the wardrobe was fitted to.
        wardrobe: what to wear.

    Raises:
        ValueError: the wardrobe belongs to another body.
    """

    def __init__(self, body: BodyArrays, wardrobe: Wardrobe):
        if len(body.faces) != len(wardrobe.body_uv):
            raise ValueError(
                f"The body has {len(body.faces)} faces, the wardrobe was made for one of "
                f"{len(wardrobe.body_uv)}; the data engine runs on the open body."
            )
        self.body = body
        regress, shapedirs = body.J_regressor.astype(np.float64), body.shapedirs
        self.joint_template = regress @ body.v_template
        self.joint_shapedirs = np.einsum("jv,vck->jck", regress, shapedirs)
        self.correctives = sparse_correctives(body)
        self.layers = Layers()
        self.layers.add(body_mesh(body, wardrobe.body_uv), cull=True)
        self.skins = tuple(wardrobe.skins)
        textures = [skin.texture for skin in self.skins]
        self.clothing: dict[str, list[Clothing]] = {}
        self.hidden_faces = []
        for garment in (*wardrobe.outfits, *wardrobe.shoes, *wardrobe.hair, *wardrobe.hats):
            layers = tuple(self._add_garment(garment))
            clothing = Clothing(garment, len(self.hidden_faces), len(textures), layers)
            self.clothing.setdefault(garment.kind, []).append(clothing)
            self.hidden_faces.append(garment.hidden_faces)
            textures.append(garment.texture)
        self.patterns = range(len(textures), len(textures) + len(patterns := pattern_textures()))
        textures.extend(patterns)
        self.textures = np.stack([fit_texture(texture) for texture in textures])
        self.hidden_faces = np.stack(self.hidden_faces)
        self.objects = {name: self.layers.add(mesh) for name, mesh in object_meshes().items()}
        self.layers.close()
        self._visible_faces: dict[tuple[int, ...], np.ndarray] = {}
        self._keep_probes()

    def _keep_probes(self) -> None:
        probes = farthest_points(self.body.v_template, NUM_PROBES)
        vertex = self.layers.vertex  # the body comes first
        self._probe_template = self.body.v_template[probes]
        self._probe_shapedirs = self.body.shapedirs[probes]
        self._probe_weights = vertex["lbs_weights"][probes]
        self._probe_joints = vertex["lbs_indices"][probes]

    def _add_garment(self, garment: Garment) -> Iterator[int]:
        """Add a garment's layers: an outfit's tops and trousers apart, to be coloured apart."""
        surface = {"tested": garment.kind == "hair", "brightness": _brightness(garment)}
        if garment.kind != "outfit":
            yield self.layers.add(garment, **surface)
            return
        piece = connected_components(garment.faces)
        middle = garment.v_template[garment.faces].mean(axis=1)[:, 1]
        height = np.bincount(piece, middle) / np.bincount(piece)
        is_top = (height > WAIST)[piece]
        for chosen in (is_top, ~is_top):
            if chosen.any():
                yield self.layers.add(garment.subset(chosen), **surface)

    def noise_pattern(self) -> Float[np.ndarray, "s s"]:
        """Return the noise among the patterns, [-1, 1], with which surroundings get fine detail."""
        noise = self.textures[self.patterns[NOISE], ..., 0]
        return noise.astype(np.float32) / 127.5 - 1

    def pose(
        self,
        betas: Float[np.ndarray, "10"],
        pose: Float[np.ndarray, "24 3"],
        parts: tuple[Part, ...] = (),
        hiding: tuple[int, ...] = (),
    ) -> Actor:
        """Return a posed person; the root joint stays where the rest pose has it."""
        rotmat = Rotation.from_rotvec(pose).as_matrix()
        joints, transforms = skeleton(self.joint_template + self.joint_shapedirs @ betas, rotmat)
        return Actor(betas, rotmat, transforms, joints, parts, hiding)

    def probe(self, actor: Actor) -> Float[np.ndarray, "{NUM_PROBES} 3"]:
        """Return vertices spread over a person's body, about 5 mm off: without pose correctives."""
        rest = self._probe_template + self._probe_shapedirs @ actor.betas
        # (p, 4) weights of (p, 4, 3, 4) transforms -> (p, 3, 4)
        blended = np.einsum(
            "pk,pkab->pab", self._probe_weights, actor.transforms[self._probe_joints]
        )
        return np.einsum("pab,pb->pa", blended[..., :3], rest) + blended[..., 3]

    def visible_faces(self, layer: int, hiding: tuple[int, ...]) -> Int[np.ndarray, "f"]:
        """Return the numbers of a layer's faces that are drawn; garments hide faces of the body."""
        key = (layer, *(hiding if layer == 0 else ()))
        if key not in self._visible_faces:
            place = self.layers.table[layer]
            faces = np.arange(place.first_face, place.first_face + place.num_faces)
            if layer == 0 and hiding:  # the body
                faces = faces[~self.hidden_faces[list(hiding)].any(axis=0)]
            self._visible_faces[key] = faces
        return self._visible_faces[key]

    def sample(self, rng: np.random.Generator, pose: Float[np.ndarray, "24 3"]) -> Actor:
        """Draw a person in a given pose: shape, clothes, hair, skin and colours."""
        sex = ("male", "female")[rng.integers(2)]
        betas = np.clip(rng.standard_normal(NUM_BETAS), -MAX_BETA, MAX_BETA)
        betas[SEX_BETA] = abs(betas[SEX_BETA]) * (1 if sex == "female" else -1)
        parts, hiding = [self._skin(rng, sex)], []
        wears = ["outfit", "shoes"]
        if rng.random() < HAT_SHARE:
            wears.append("hat")
        elif rng.random() > BALD_SHARE[sex]:
            wears.append("hair")
        for kind in wears:
            fitting = [c for c in self.clothing[kind] if c.garment.suits in (sex, "both")]
            if not fitting:
                continue
            clothing = fitting[rng.integers(len(fitting))]
            hiding.append(clothing.number)
            for layer in clothing.layers:
                parts.append(self._clothe(rng, clothing, layer))
        return self.pose(betas, pose, tuple(parts), tuple(hiding))

    def _skin(self, rng: np.random.Generator, sex: str) -> Part:
        fitting = [i for i, skin in enumerate(self.skins) if skin.suits == sex]
        tint = rng.uniform(0.75, 1.2) * np.array(
            [1, rng.uniform(0.94, 1.03), rng.uniform(0.9, 1.05)]
        )
        return Part(0, fitting[rng.integers(len(fitting))], np.diag(tint), rng.uniform(0.02, 0.08))

    def _clothe(self, rng: np.random.Generator, clothing: Clothing, layer: int) -> Part:
        brightness = self.layers.table[layer].brightness
        if clothing.garment.kind == "hair":
            color = HAIR_COLORS[rng.choice(len(HAIR_COLORS), p=HAIR_SHARES)]
            color = color * rng.uniform(0.7, 1.4) * rng.uniform(0.9, 1.1, 3)
            return Part(layer, clothing.texture, dye(color, brightness), 0.03)
        texture, highlight = clothing.texture, rng.uniform(0.0, 0.03)
        kind = rng.random()
        if kind < 0.2:
            matrix = np.eye(3) * rng.uniform(0.7, 1.3)
        elif kind < 0.55:
            matrix = turned_hue(
                rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.4), rng.uniform(0.6, 1.5)
            )
        else:
            matrix = dye(random_color(rng), brightness)
        if clothing.garment.kind == "outfit" and rng.random() < PATTERN_SHARE:
            texture = self.patterns[rng.integers(1, len(self.patterns))]
            matrix = dye(random_color(rng), 0.45)
        return Part(layer, texture, matrix, highlight)

    def sample_object(
        self,
        rng: np.random.Generator,
        name: str,
        size: Float[np.ndarray, "3"],
        rotation: Float[np.ndarray, "3 3"],
        place: Float[np.ndarray, "3"],
    ) -> Actor:
        """Return an object of random colour and pattern.

        Args:
            name: of the object, see `smpler.datasets.engine.objects.object_meshes`.
            size: of the box that it fills, metres.
            rotation: of the box.
            place: of the box's middle.
        """
        texture = self.patterns[rng.integers(len(self.patterns))]
        part = Part(self.objects[name], texture, dye(random_color(rng), 0.5), rng.uniform(0, 0.1))
        transform = np.concatenate([rotation * size, place[:, None]], axis=1)
        return Actor(
            betas=np.zeros(NUM_BETAS),
            rotmat=np.tile(np.eye(3), (NUM_JOINTS, 1, 1)),
            transforms=np.tile(transform, (NUM_JOINTS, 1, 1)),
            joints=np.tile(place, (NUM_JOINTS, 1)),
            parts=(part,),
        )


def _brightness(garment: Garment) -> float:
    """Return the mean linear luminance of a garment's texture where its faces show it."""
    texture = fit_texture(garment.texture)
    size = len(texture)
    column, row = (garment.uv.mean(axis=1) * size).astype(int).clip(0, size - 1).T
    texels = texture[row, column]
    weight = texels[:, 3].astype(float) + 1
    luminance = srgb_to_linear(texels[:, :3] / 255) @ LUMINANCE
    return float((luminance * weight).sum() / weight.sum())
