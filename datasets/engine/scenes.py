"""One scene as numbers: where people stand, what light falls on them, how the camera sees them.

World frame: metres, y up, the ground is y = 0, the subject stands about the origin. Camera frame:
x right, y down, z away. Crop pixels: x right, y down, (0, 0) is the crop's top-left corner.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.actors import Actor
from smpler.datasets.engine.framing import Framing, sample_framing
from smpler.datasets.engine.people import People
from smpler.datasets.engine.photo import Photo, sample_photo
from smpler.datasets.engine.surfaces import sh_basis
from smpler.datasets.engine.wardrobe import Panorama, spherical_harmonics
from smpler.utils.joints import SMPL_NAMES

SOLE = 0.02
"""Metres between the ground and the lowest point of a body: it wears shoes."""
MIN_SUN_HEIGHT = 0.15
"""Sine of the sun's smallest angle above the ground."""
FLIP_CAMERA = np.diag([1.0, -1.0, -1.0])
"""From y up, z towards the viewer, to y down, z away."""


@dataclass(frozen=True, eq=False)
class Light:
    """Light in the camera frame: ambient light, the sun, and the surroundings."""

    sh: Float[np.ndarray, "9 3"]
    """White matt of unit normal n shows `surfaces.sh_basis(n) @ sh` and the sun's light."""
    sun: Float[np.ndarray, "3"]
    """Unit vector towards the sun."""
    sun_color: Float[np.ndarray, "3"]
    shade: Float[np.ndarray, "3"]
    """Share of the ground's light that is the sun's."""
    panorama: int
    """Number of the panorama that is the surroundings."""
    to_panorama: Float[np.ndarray, "3 3"]
    """From the camera's axes to the panorama's."""
    detail: float
    """Strength of the fine pattern on the surroundings."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that a renderer needs, in the camera frame."""

    actors: tuple[Actor, ...]
    """The first is the subject."""
    framing: Framing
    ground: Float[np.ndarray, "4"]
    """Unit normal n that points up, and n . x of the ground's points x."""
    light: Light
    photo: Photo


@dataclass(frozen=True, eq=False)
class View:
    """A camera: x_camera = rotation @ x_world + translation."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]


def sample_scene(
    rng: np.random.Generator,
    people: People,
    panoramas: Sequence[Panorama],
    sample_pose: Callable[[np.random.Generator], Float[np.ndarray, "24 3"]],
    training: bool,
) -> Scene:
    """Draw a scene.

    Args:
        sample_pose: returns axis-angle in the world frame.
        training: rotate, scale and colour crops as the published augmentation does.
    """
    subject, probes = stand(people, people.sample(rng, sample_pose(rng)), np.zeros(2))
    view = sample_view(rng, probes)
    actors = [
        subject,
        *_others(rng, people, sample_pose, view),
        *_objects(rng, people, subject, view),
    ]
    seen = probes @ view.rotation.T + view.translation
    framing = sample_framing(rng, seen, training)
    roll = Rotation.from_rotvec([0, 0, framing.rotation]).as_matrix()
    view = View(roll @ view.rotation, roll @ view.translation)
    up = view.rotation[:, 1]
    light = sample_light(rng, panoramas, view.rotation)
    return Scene(
        actors=tuple(actor.moved(view.rotation, view.translation) for actor in actors),
        framing=framing,
        ground=np.append(up, up @ view.translation),
        light=light,
        photo=sample_photo(rng, 200 * framing.scale, training),
    )


def stand(
    people: People, actor: Actor, place: Float[np.ndarray, "2"]
) -> tuple[Actor, Float[np.ndarray, "p 3"]]:
    """Move a person so that the lowest point touches the ground at a place (x, z).

    Returns:
        The person, and some of the body's vertices.
    """
    probes = people.probe(actor)
    middle = (probes.min(axis=0) + probes.max(axis=0)) / 2
    shift = np.array([place[0] - middle[0], SOLE - probes[:, 1].min(), place[1] - middle[2]])
    return actor.moved(np.eye(3), shift), probes + shift


def sample_view(rng: np.random.Generator, probes: Float[np.ndarray, "p 3"]) -> View:
    """Draw the camera: from where it looks, and where in its picture the subject is.

    Args:
        probes: some vertices of the subject, world frame.
    """
    yaw = rng.normal(0, 0.6) if rng.random() < 0.5 else rng.uniform(-np.pi, np.pi)
    pitch = rng.normal(0.08, 0.14) if rng.random() < 0.85 else rng.uniform(-0.35, 0.9)
    roll = rng.normal(0, 0.04)
    distance = np.exp(rng.normal(np.log(4.0), 0.45))
    off_axis = np.clip(rng.normal(0, [0.18, 0.08]), -0.5, 0.5)
    downward = pitch - np.arctan(off_axis[1])
    turn = Rotation.from_euler("xz", [downward, roll]).as_matrix()
    rotation = turn @ FLIP_CAMERA @ Rotation.from_rotvec([0, yaw, 0]).as_matrix()
    target = (probes.min(axis=0) + probes.max(axis=0)) / 2
    extent = np.linalg.norm(probes - target, axis=1).max()
    distance = max(distance, extent + MIN_CLEARANCE)
    return View(rotation, distance * np.append(off_axis, 1) - rotation @ target)


MIN_CLEARANCE = 0.8
"""Metres from the camera to the sphere round the subject, at least."""


def sample_light(
    rng: np.random.Generator, panoramas: Sequence[Panorama], rotation: Float[np.ndarray, "3 3"]
) -> Light:
    """Draw a panorama, turned about the vertical and perhaps mirrored.

    Args:
        rotation: from the world to the camera.
    """
    number = int(rng.integers(len(panoramas)))
    panorama = panoramas[number]
    turn = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0]).as_matrix()
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1, 1])
    to_panorama = mirror @ turn @ rotation.T
    # Spherical harmonics in the camera frame, fitted to the panorama's in some directions.
    coefficients = _SH_FIT @ (spherical_harmonics(_SH_POINTS @ to_panorama.T) @ panorama.ambient)
    up = rotation[:, 1]
    sun = to_panorama.T @ panorama.sun_direction
    sun = sun + up * max(MIN_SUN_HEIGHT - sun @ up, 0)
    sun /= np.linalg.norm(sun)
    direct = panorama.sun_color * max(sun @ up, 0)
    ambient = np.maximum(sh_basis(up[None])[0] @ coefficients, 0.02)
    return Light(
        sh=coefficients,
        sun=sun,
        sun_color=np.asarray(panorama.sun_color, np.float64),
        shade=direct / (direct + ambient),
        panorama=number,
        to_panorama=to_panorama,
        detail=rng.uniform(0, 0.25),
    )


_SH_POINTS = np.random.default_rng(0).standard_normal((64, 3))
_SH_POINTS /= np.linalg.norm(_SH_POINTS, axis=1, keepdims=True)
_SH_FIT = np.linalg.pinv(sh_basis(_SH_POINTS))


def _others(
    rng: np.random.Generator, people: People, sample_pose: Callable, view: View
) -> list[Actor]:
    """Draw other people: beside, behind or before the subject, on the same ground."""
    others = []
    for _ in range(rng.choice(len(OTHERS_SHARES), p=OTHERS_SHARES)):
        side = rng.choice([-1, 1]) * rng.uniform(0.5, 1.6)
        place = _on_ground(view, side, rng.uniform(-0.9, 2.5))
        yaw = Rotation.from_rotvec([0, rng.uniform(-np.pi, np.pi), 0]).as_matrix()
        person = people.sample(rng, sample_pose(rng)).moved(yaw, np.zeros(3))
        person, probes = stand(people, person, place)
        depth = probes @ view.rotation[2] + view.translation[2]
        if depth.min() > MIN_CLEARANCE:
            others.append(person)
    return others


OTHERS_SHARES = (0.72, 0.2, 0.08)
"""How often there are 0, 1 or 2 other people."""


def _on_ground(view: View, right: float, away: float) -> Float[np.ndarray, "2"]:
    """Return the place (x, z) `right` and `away` metres from the subject as the camera looks."""
    forward = view.rotation[2, [0, 2]]
    forward = forward / np.linalg.norm(forward)
    return right * np.array([-forward[1], forward[0]]) + away * forward


def _objects(rng: np.random.Generator, people: People, subject: Actor, view: View) -> list[Actor]:
    """Draw objects: a seat if the subject sits, and things in front of or behind the subject."""
    objects = []
    if (block := seat(rng, people, subject)) is not None:
        objects.append(block)
    for _ in range(rng.choice(len(OBJECTS_SHARES), p=OBJECTS_SHARES)):
        kind = rng.choice(["box", "cylinder", "ball"], p=[0.6, 0.28, 0.12])
        size = np.exp(rng.normal(np.log(0.35), 0.4, 3))
        if kind == "cylinder":
            size = np.array([0.1, 2.4, 0.1]) * np.exp(rng.normal(0, [0.4, 0.2, 0.4]))
        if kind == "ball":
            size = np.full(3, rng.uniform(0.12, 0.6))
        away = rng.uniform(-1.0, -0.35) if rng.random() < 0.6 else rng.uniform(0.4, 2.5)
        place = _on_ground(view, rng.normal(0, 0.45), away)
        height = 0.0 if rng.random() < 0.8 else rng.uniform(0, 1.2)
        center = np.array([place[0], size[1] / 2 + height, place[1]])
        depth = view.rotation[2] @ center + view.translation[2]
        if depth - np.linalg.norm(size) / 2 > MIN_CLEARANCE:
            turn = Rotation.from_rotvec([0, rng.uniform(-np.pi, np.pi), 0]).as_matrix()
            objects.append(people.sample_object(rng, kind, size, turn, center))
    return objects


OBJECTS_SHARES = (0.7, 0.2, 0.1)
"""How often there are 0, 1 or 2 objects besides a seat."""


def seat(rng: np.random.Generator, people: People, subject: Actor) -> Actor | None:
    """Return, most of the time, a block under a subject who sits as on a chair; else None."""
    place = {name: subject.joints[SMPL_NAMES.index(name)] for name in SMPL_NAMES}
    height = min(place["L_Hip"][1], place["R_Hip"][1]) - SEAT_DEPTH
    for side in "LR":
        hip, knee, ankle = (place[f"{side}_{name}"] for name in ("Hip", "Knee", "Ankle"))
        if abs(knee[1] - hip[1]) > 0.2 or knee[1] - ankle[1] < 0.25:
            return None
    if height < 0.15 or rng.random() < 0.2:
        return None
    forward = place["L_Knee"] + place["R_Knee"] - place["L_Hip"] - place["R_Hip"]
    angle = np.arctan2(forward[0], forward[2])
    size = np.array([rng.uniform(0.4, 0.7), height, 0.42])
    middle = (place["L_Hip"] + place["R_Hip"]) / 2
    center = np.array([middle[0], height / 2, middle[2]])
    turn = Rotation.from_rotvec([0, angle, 0]).as_matrix()
    return people.sample_object(rng, "box", size, turn, center)


SEAT_DEPTH = 0.11
"""Metres from the hip joints down to the seat."""
