"""Rendered pictures of groups with exact labels: 2 to 8 dressed people in one scene.

The people are the open data engine's. They stand, walk and sit beside and partly in front of each
other, at different distances; the picture's borders cut some of them off. Picture i depends on the
seed and i alone. Pixels of a picture: x right, y down, (0, 0) is its top-left corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.actors import Actor
from smpler.datasets.engine.framing import Framing
from smpler.datasets.engine.photo import develop, sample_photo
from smpler.datasets.engine.poses.sampler import PoseSampler
from smpler.datasets.engine.render.labels import JointRegressor
from smpler.datasets.engine.render.numba_geometry import project, rasterize
from smpler.datasets.engine.render.numba_renderer import NumbaRenderer
from smpler.datasets.engine.scenes import FLIP_CAMERA, Scene, View, sample_light, seat, stand
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.datasets.engine.surfaces import SAMPLES
from smpler.models.body import open_body
from smpler.utils.image import CROP_SIZE, Box
from smpler.utils.joints import KEYPOINTS_FROM_H36M

MIN_PEOPLE, MAX_PEOPLE = 2, 8
LONGER_SIDES = (640, 960)
"""Range of the longer side of a picture, pixels."""
ASPECTS = (1.0, 3 / 4, 2 / 3, 9 / 16)
"""Shorter by longer side of a picture."""
POSES = {"stand": 0.45, "walk": 0.25, "sit": 0.15, "reach": 0.08, "bend": 0.04, "squat": 0.03}
"""How often people take a pose, by its name among the pose sampler's kinds."""
SPACING = (0.25, 0.75)
"""Range of the width of a group by its number of people, metres."""
MIN_DISTANCE = {"stand": 0.42, "other": 0.6}
"""Metres between the middles of two people at least, by the pose: bodies shall not meet."""
MIN_CAMERA_DISTANCE = 1.3
"""Metres from the camera to the nearest point of a person at least."""


@dataclass(frozen=True, eq=False)
class Person:
    """The labels of one person."""

    box: Box | None
    """Of the visible body: left, top, width, height in pixels; None if nothing of it is visible."""
    whole: Box
    """Of the whole body, what is hidden or outside the picture included."""
    visible: float
    """Visible pixels by pixels of the whole body when it is rendered alone, [0, 1]."""
    inside: float
    """Share of the whole body's pixels within the picture, hidden ones included, [0, 1]."""
    keypoints: Float[np.ndarray, "14 3"]
    """Camera frame, metres."""


@dataclass(frozen=True, eq=False)
class GroupPicture:
    """A picture and its labels."""

    image: UInt8[np.ndarray, "h w 3"]
    people: tuple[Person, ...]
    focal: float
    """Pixels."""
    center: tuple[float, float]
    """Principal point, pixels."""

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Return the pixels of points in the camera frame."""
        return np.array(self.center) + self.focal * points[:, :2] / points[:, 2:]


@dataclass(frozen=True, eq=False)
class Group:
    """What a picture shows, not yet rendered."""

    scene: Scene
    """Its camera looks through the middle of the picture. People come first, then their seats."""
    num_people: int
    size: tuple[int, int]
    """Width and height of the picture, pixels; even."""


class GroupPictures:
    """The rendered groups: picture i by `pictures[i]`.

    Args:
        seed: of the first random number of every picture.
    """

    def __init__(self, seed: int = 0):
        body = open_body()
        # version 1: the recorded numbers are of these poses
        stream = SyntheticPeople(body, poses=PoseSampler(version=1), augment=False)
        self.seed = seed
        self.people, self.panoramas, self.noise = stream.people, stream.panoramas, stream.noise
        self.poses: PoseSampler = stream.poses
        # the compiled renderer by name: the masks are read from its parts
        self.renderer = NumbaRenderer(self.people, self.panoramas)
        self._regress_joints = JointRegressor(body.h36m_regressor)
        self._num_vertices = len(body.v_template)

    def __getitem__(self, index: int) -> GroupPicture:
        group = self.group(index)
        return GroupPicture(
            self.render(group),
            self.labels(group),
            group.scene.framing.focal,
            (group.size[0] / 2, group.size[1] / 2),
        )

    def group(self, index: int) -> Group:
        """Draw the scene of a picture."""
        rng = np.random.default_rng([self.seed, index])
        longer = int(rng.integers(LONGER_SIDES[0] // 2, LONGER_SIDES[1] // 2 + 1)) * 2
        size = (longer, round(longer * rng.choice(ASPECTS) / 2) * 2)
        size = size if rng.random() < 0.75 else size[::-1]
        num_people = int(rng.integers(MIN_PEOPLE, MAX_PEOPLE + 1))
        actors, probes, seats = self._place_people(rng, num_people)
        focal = rng.uniform(0.75, 1.3) * longer
        view = sample_view(rng, np.concatenate(probes), focal, size)
        light = sample_light(rng, self.panoramas, view.rotation)
        up = view.rotation[:, 1]
        nowhere = np.zeros(2)  # a group's framing is only a camera: it crops nobody out
        middle = np.full(2, CROP_SIZE / 2)
        return Group(
            scene=Scene(
                actors=tuple(a.moved(view.rotation, view.translation) for a in [*actors, *seats]),
                framing=Framing(focal, middle, 0.0, np.zeros(4), nowhere, 1.0),
                ground=np.append(up, up @ view.translation),
                light=light,
                photo=sample_photo(rng, CROP_SIZE, training=False),
            ),
            num_people=num_people,
            size=size,
        )

    def _place_people(
        self, rng: np.random.Generator, count: int
    ) -> tuple[list[Actor], list[Float[np.ndarray, "p 3"]], list[Actor]]:
        """Put people on the ground, and seats under those who sit; the camera will look along -z.

        Returns:
            The people, some of the vertices of each, and the seats.
        """
        width, spread = count * rng.uniform(*SPACING), rng.choice([0.5, 1.5, 3.0])
        actors, probes, seats, places = [], [], [], []
        while len(actors) < count:
            kind = str(rng.choice(list(POSES), p=list(POSES.values())))
            space = MIN_DISTANCE["stand" if kind in ("stand", "walk") else "other"]
            place = np.array([rng.uniform(0, width), -rng.uniform(0, spread)])
            if any(np.linalg.norm(place - other) < max(space, apart) for other, apart in places):
                width *= 1.02  # more room, so that there is an end
                continue
            heading = rng.normal(0, 0.6) if rng.random() < 0.65 else rng.uniform(-np.pi, np.pi)
            person = self.people.sample(rng, self._pose(rng, kind))
            turn = Rotation.from_rotvec([0, heading, 0]).as_matrix()
            person, points = stand(self.people, person.moved(turn, np.zeros(3)), place)
            if kind == "sit" and (block := seat(rng, self.people, person)):
                seats.append(block)
            actors.append(person)
            probes.append(points)
            places.append((place, space))
        return actors, probes, seats

    def _pose(self, rng: np.random.Generator, kind: str) -> Float[np.ndarray, "24 3"]:
        number = np.full(4, self.poses.kinds.index(kind))
        while True:
            drawn = self.poses.propose(number, rng)
            if drawn.possible.any():
                return drawn.pose[drawn.possible][0]

    def render(self, group: Group) -> UInt8[np.ndarray, "h w 3"]:
        """Return the picture of a group, with the faults of a camera."""
        scene, (left, top), side = group.scene, *_window(group.size)
        rendering = self.renderer.render(scene, (side - CROP_SIZE) // 2)
        part = np.s_[top : top + group.size[1], left : left + group.size[0]]
        image = develop(rendering.light[part], rendering.alpha[part], scene.photo, self.noise)
        return np.rint(255 * image).astype(np.uint8)

    def labels(self, group: Group) -> tuple[Person, ...]:
        """Return the labels of the people of a group, in the scene's order."""
        (left, top), side = _window(group.size)
        width, height = group.size
        focal, center = group.scene.framing.focal, np.full(2, side / 2)
        owners = self._owners(group.scene.actors, focal, center, side)
        part = np.s_[SAMPLES * top : SAMPLES * (top + height)]
        owners = owners[part, SAMPLES * left : SAMPLES * (left + width)]
        return tuple(
            self._person(actor, focal, owners == number, group.size)
            for number, actor in enumerate(group.scene.actors[: group.num_people])
        )

    def _person(
        self, actor: Actor, focal: float, shown: Bool[np.ndarray, "i j"], size: tuple[int, int]
    ) -> Person:
        """Label one person.

        Args:
            actor: camera frame.
            focal: pixels.
            shown: which samples of the picture show the person.
            size: width and height of the picture, pixels.
        """
        vertices = self.renderer.pack([actor]).vertices
        middle = np.array(size) / 2
        places = middle + focal * vertices[:, :2] / vertices[:, 2:]
        # a square window, at whole pixels of the picture, that holds the person alone
        corner = np.floor(places.min(axis=0)).astype(int)
        side = int(np.ceil((places.max(axis=0) - corner).max())) + 1
        alone = self._owners([actor], focal, middle - corner, side) == 0
        row, column = np.nonzero(alone)
        x, y = corner[0] + (column + 0.5) / SAMPLES, corner[1] + (row + 0.5) / SAMPLES
        is_inside = (x >= 0) & (y >= 0) & (x < size[0]) & (y < size[1])
        joints = self._regress_joints(vertices[: self._num_vertices])
        whole = _box(alone)
        return Person(
            box=_box(shown) if shown.any() else None,
            whole=(whole[0] + int(corner[0]), whole[1] + int(corner[1]), *whole[2:]),
            visible=float(shown.sum() / len(row)),
            inside=float(is_inside.mean()),
            keypoints=joints[list(KEYPOINTS_FROM_H36M)],
        )

    def _owners(
        self, actors: Sequence[Actor], focal: float, center: Float[np.ndarray, "2"], side: int
    ) -> Int[np.ndarray, "s s"]:
        """Return which of the actors each sample of a square picture shows, -1 for none."""
        packed, layers = self.renderer.pack(actors), self.people.layers
        parts = [part for actor in actors for part in actor.parts]
        surfaces = (
            packed.source,
            layers.uv,
            self.people.textures,
            np.array([part.texture for part in parts]),
            np.array([layers.table[part.layer].cull for part in parts]),
            np.array([layers.table[part.layer].tested for part in parts]),
        )
        place = SAMPLES * np.float32(focal), SAMPLES * center.astype(np.float32)
        points = project(packed.vertices, *place)
        face, *_ = rasterize(points, packed.faces, packed.materials, surfaces, SAMPLES * side)
        return np.where(face < 0, -1, packed.actor[packed.materials[face]])


def sample_view(
    rng: np.random.Generator,
    probes: Float[np.ndarray, "p 3"],
    focal: float,
    size: tuple[int, int],
) -> View:
    """Draw the camera: most of the group is in the picture, and fills a part of it.

    Args:
        probes: some vertices of the people, world frame.
        focal: pixels.
        size: width and height of the picture, pixels.
    """
    low, high = probes.min(axis=0), probes.max(axis=0)
    pitch, roll = rng.normal(0.1, 0.09), rng.normal(0, 0.03)
    turn = Rotation.from_euler("xz", [pitch, roll]).as_matrix()
    rotation = turn @ FLIP_CAMERA
    target = (low + high) / 2
    filled = np.array([rng.uniform(0.6, 1.25), rng.uniform(0.5, 1.2)])
    # metres at the target's distance that the picture shows -> distance
    distance = (focal * (high - low)[:2] / (filled * np.array(size))).max()
    away = (probes - target) @ rotation[2]
    distance = max(distance * rng.uniform(1, 1.5), MIN_CAMERA_DISTANCE - away.min())
    aside = rng.normal(0, 0.04, 2) * np.array(size) / focal
    return View(rotation, distance * np.append(aside, 1) - rotation @ target)


def _window(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return where a picture lies in the square one round it that is rendered, and its side."""
    side = max(size)
    return ((side - size[0]) // 2, (side - size[1]) // 2), side


def _box(shown: Bool[np.ndarray, "i j"]) -> Box:
    """Return the box of a mask of samples, in pixels."""
    column, row = (np.flatnonzero(shown.any(axis=axis)) for axis in (0, 1))
    left, top = column[0] / SAMPLES, row[0] / SAMPLES
    right, bottom = (column[-1] + 1) / SAMPLES, (row[-1] + 1) / SAMPLES
    return float(left), float(top), float(right - left), float(bottom - top)
