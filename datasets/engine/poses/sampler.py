"""Random poses of the open data engine.

They are drawn by rule, from statistics of motion capture, from key poses or from the user's AMASS
files.

Frame: x to the body's left, y up, z forward; metres, radians. A pose is (24, 3) axis-angle
relative to SMPL's T-pose. Joint 0 is the body's own tilt in a world whose y is up: its twist about
the vertical is zero, so that an upright person has about (0, 0, 0) and looks along z, and one on
the back about (-pi/2, 0, 0). The scene turns people about the vertical and brings them into the
camera's frame.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses import anatomy, balance, self_collision
from smpler.datasets.engine.poses.amass import load_amass
from smpler.datasets.engine.poses.archetypes import ARCHETYPES
from smpler.datasets.engine.poses.arms import add_arms
from smpler.datasets.engine.poses.captured import CapturedPoses
from smpler.datasets.engine.poses.draft import Draft
from smpler.utils.files.arrays import read_numbers
from smpler.utils.joints import NUM_JOINTS, SMPL_NAMES
from smpler.utils.paths import META_DATA

KEY_POSES = META_DATA / "key_poses.npz"
KEY_SHAPES = {"pose": ("n", NUM_JOINTS, 3), "rest_joints": (NUM_JOINTS, 3)}
KEY_SHARE = 0.22
"""Share of key poses among the poses that are neither AMASS's nor captured."""
CAPTURED_SHARES = {1: (0.0, 0.0), 2: (0.34, 0.06)}
"""Version of the poses -> shares of captured poses, upright and on the floor, among those that are
not AMASS's."""
VERSIONS = tuple(CAPTURED_SHARES)
MOST_OVERHANG = {"captured": 0.3, "floor": 0.2}
"""How far a captured body's centre of mass may be beside what it stands on [m]. Of the recorded
poses, 97 % of the upright ones, which jump and run too, and 75 % of those on the floor keep it."""
NOISE = np.deg2rad(5.0)
"""Standard deviation about each axis of a key pose's joints; half of it on legs and root."""
RARE = {"fly01": 0.4, "fly02": 0.4, "gym01": 0.3, "fight02": 0.3}
"""How often these key poses are drawn, relative to the others. They are flights, leaps and turns
in the air, which the data engine puts on the ground."""
SUNK = 0.05
"""How far any part may sink into the ground [m]."""

_KNEES, _ANKLES, _TOES = (
    [SMPL_NAMES.index(f"{side}_{name}") for side in "LR"] for name in ("Knee", "Ankle", "Foot")
)
_LEGS = [SMPL_NAMES.index(f"{side}_{n}") for side in "LR" for n in ("Hip", "Knee", "Ankle")]
_CARRIES = np.array(
    [self_collision.belongs_to(archetype.stands_on) for archetype in ARCHETYPES.values()]
    + [self_collision.belongs_to(())] * 4  # captured and key poses, AMASS
)
"""(kinds, capsules): which capsules carry the body of each kind."""
_ARMS = [SMPL_NAMES.index(f"{side}_{name}") for side in "LR" for name in anatomy.ARM_JOINTS]


@dataclass(frozen=True)
class Proposal:
    """Poses as drawn, the impossible ones among them."""

    pose: Float[np.ndarray, "n 24 3"]
    kind: Int[np.ndarray, "n"]
    """Index into `PoseSampler.kinds`."""
    possible: Bool[np.ndarray, "n"]


class PoseSampler:
    """Draws poses; the same generator state gives the same poses.

    Args:
        amass: npz file or folder of AMASS, see `smpler.datasets.engine.poses.amass.load_amass`.
        amass_share: share of AMASS among all poses, when `amass` is given.
        version: 2, the wider poses, or 1, those of the validation set open/1, which never change.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or an argument is unusable.
    """

    kinds = (*ARCHETYPES, "captured", "floor", "key", "amass")
    """What a pose was drawn as."""

    _most_overhang = np.array([MOST_OVERHANG.get(name, np.inf) for name in kinds])

    def __init__(self, amass: str | Path | None = None, amass_share: float = 0.5, version: int = 2):
        if not 0 <= amass_share <= 1:
            raise ValueError(f"amass_share is {amass_share:g}, not within 0 and 1.")
        if version not in VERSIONS:
            raise ValueError(f"version is {version}; there are {' and '.join(map(str, VERSIONS))}.")
        read = read_numbers(KEY_POSES, KEY_SHAPES, texts={"names": ("n",)})
        names, pose, self.rest_joints = read["names"].tolist(), read["pose"], read["rest_joints"]
        tilt = anatomy.remove_heading(Rotation.from_rotvec(pose[:, 0]))
        pose[:, 0] = tilt.as_rotvec()
        self.key_poses, self._upright = pose, np.linalg.norm(pose[:, 0], axis=1) < 0.5
        weights = np.array([RARE.get(name, 1.0) for name in names])
        self._key_weights = weights / weights.sum()
        self.amass = load_amass(amass) if amass else np.zeros((0, NUM_JOINTS, 3))
        self.version, self._captured = version, CapturedPoses()
        self._shares = self._kind_shares(CAPTURED_SHARES[version], amass_share if amass else 0.0)

    def _kind_shares(self, captured: tuple[float, float], amass: float) -> Float[np.ndarray, "k"]:
        weights = np.array([archetype.weight for archetype in ARCHETYPES.values()])
        rules = (1 - KEY_SHARE) * weights / weights.sum()
        ruled = 1 - sum(captured)
        drawn = np.array([*ruled * rules, *captured, ruled * KEY_SHARE])
        return np.array([*(1 - amass) * drawn, amass])

    def sample(self, rng: np.random.Generator) -> Float[np.ndarray, "24 3"]:
        """Draw one pose."""
        return self.sample_batch(1, rng)[0]

    def sample_batch(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 24 3"]:
        """Draw many poses."""
        return self.sample_kinds(count, rng)[0]

    def sample_kinds(
        self, count: int, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "n 24 3"], Int[np.ndarray, "n"]]:
        """Draw many poses, and what each was drawn as: an index into `kinds`.

        The kind is drawn first, and kept until a pose of it is possible: shares are as stated.
        """
        kind = np.searchsorted(self._shares.cumsum()[:-1], rng.random(count), side="right")
        pose, open_places = np.empty((count, NUM_JOINTS, 3)), np.arange(count)
        while len(open_places):
            tries = 1 if len(open_places) > 16 else 4  # a few at once cost what one costs
            places = open_places.repeat(tries)
            drawn = self.propose(kind[places], rng)
            filled, first = np.unique(places[drawn.possible], return_index=True)
            pose[filled] = drawn.pose[drawn.possible][first]
            open_places = np.setdiff1d(open_places, filled)
        return pose, kind

    def propose(self, kind: Int[np.ndarray, "n"], rng: np.random.Generator) -> Proposal:
        """Draw a pose of each kind, possible or not; every second one is mirrored."""
        pose = np.empty((len(kind), NUM_JOINTS, 3))
        for number in np.unique(kind):
            chosen = np.flatnonzero(kind == number)
            pose[chosen] = self._draw(self.kinds[number], len(chosen), rng)
        flip = rng.random(len(kind)) < 0.5
        pose[flip] = anatomy.mirror_pose(pose[flip])
        return Proposal(pose, kind, self.is_possible(pose, kind))

    def _draw(self, kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
        if kind == "amass":
            return self.amass[rng.integers(len(self.amass), size=count)].astype(np.float64)
        if kind == "key":
            return self._draw_key_poses(count, rng)
        if kind in ("captured", "floor"):
            return self._captured.draw(count, rng, floor=kind == "floor")
        draft, archetype = Draft(count, rng), ARCHETYPES[kind]
        archetype.draw(draft)
        add_arms(draft, archetype.arms)
        pose = anatomy.pose_from_angles(anatomy.clip_angles(draft.angles))
        tilt = Rotation.from_euler("yxz", draft.tilt[:, [1, 0, 2]], degrees=True)
        pose[:, 0] = anatomy.remove_heading(tilt).as_rotvec()
        return self._on_feet(pose, archetype.balanced) if archetype.on_feet else pose

    def _draw_key_poses(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw key poses with noise: some on the way to an upright one, some with other arms."""
        first = rng.choice(len(self.key_poses), count, p=self._key_weights)
        second = rng.choice(np.flatnonzero(self._upright), count)
        share = np.where(self._upright[first], rng.uniform(0, 0.5, count), 0)
        start = Rotation.from_rotvec(self.key_poses[first].reshape(-1, 3))
        end = Rotation.from_rotvec(self.key_poses[second].reshape(-1, 3))
        way = (start.inv() * end).as_rotvec() * share.repeat(NUM_JOINTS)[:, None]
        noise = NOISE * rng.standard_normal((count, NUM_JOINTS, 3)).clip(-2.5, 2.5)
        noise[:, [0, *_LEGS]] /= 2
        pose = start * Rotation.from_rotvec(way) * Rotation.from_rotvec(noise.reshape(-1, 3))
        pose = pose.as_rotvec().reshape(count, NUM_JOINTS, 3)
        pose[:, 0] = anatomy.remove_heading(Rotation.from_rotvec(pose[:, 0])).as_rotvec()
        draft = Draft(count, rng)
        add_arms(draft, {})
        other_arms = rng.random(count) < 0.3
        drawn = anatomy.pose_from_angles(draft.angles)
        pose[np.ix_(other_arms, _ARMS)] = drawn[np.ix_(other_arms, _ARMS)]
        return anatomy.clip_to_limits(pose)

    def _on_feet(
        self, pose: Float[np.ndarray, "n 24 3"], balanced: bool
    ) -> Float[np.ndarray, "n 24 3"]:
        """Tilt the body over its feet, then lay the soles near the ground flat on it."""
        joints, rotations = anatomy.forward_kinematics(pose, self.rest_joints)
        pose = pose.copy()
        for _ in range(2 if balanced else 0):  # twice, as the first turn may lower the other foot
            turn = balance.balancing_turn(joints)
            joints, rotations = joints @ turn.swapaxes(1, 2), turn[:, None] @ rotations
        if balanced:
            root = Rotation.from_matrix(rotations[:, 0])
            pose[:, 0] = anatomy.remove_heading(root).as_rotvec()
        return _flatten_soles(pose, joints, rotations)

    def is_possible(
        self, pose: Float[np.ndarray, "n 24 3"], kind: Int[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "n"]:
        """Say which poses a body can take: arms within reach, not through itself or the ground.

        Captured ones may not fall over either. Joints are drawn within their limits, which are not
        checked again. AMASS's poses, which people took, all count as possible.
        """
        posed = anatomy.forward_kinematics(pose, self.rest_joints)
        ends = self_collision.capsule_ends(*posed)
        possible = anatomy.within_reach(anatomy.upper_arm_directions(*posed)).all(1)
        possible &= self_collision.penetration(ends) <= self_collision.SOFT
        bottom, carries = self_collision.lowest(ends), _CARRIES[kind]
        ground = np.where(carries, bottom, np.inf).min(axis=1)
        others = np.where(carries, np.inf, bottom).min(axis=1)
        possible &= ~carries.any(1) | (others > ground - SUNK)
        most = self._most_overhang[kind]
        if (leans := possible & (most < np.inf)).any():
            possible[leans] = balance.overhang(posed[0][leans], ends[leans]) <= most[leans]
        return possible | (kind == self.kinds.index("amass"))


def _flatten_soles(
    pose: Float[np.ndarray, "n 24 3"],
    joints: Float[np.ndarray, "n 24 3"],
    rotations: Float[np.ndarray, "n 24 3 3"],
) -> Float[np.ndarray, "n 24 3"]:
    """Lay the feet near the ground flat on it, as far as the ankles go.

    Args:
        joints, rotations: of the posed skeleton.
    """
    height = joints[:, _ANKLES, 1]
    on_ground = (height < height.min(axis=1, keepdims=True) + 0.06)[..., None]
    foot = Rotation.from_matrix(rotations[:, _ANKLES].reshape(-1, 3, 3))
    heading = foot * anatomy.remove_heading(foot).inv()
    shin = Rotation.from_matrix(rotations[:, _KNEES].reshape(-1, 3, 3))
    ankle = (shin.inv() * heading).as_rotvec().reshape(-1, 2, 3)
    flat = pose.copy()
    flat[:, _ANKLES] = np.where(on_ground, ankle, pose[:, _ANKLES])
    flat[:, _TOES] = np.where(on_ground, 0, pose[:, _TOES])
    return anatomy.clip_to_limits(flat)
