import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from smpler.datasets.engine.poses import anatomy, self_collision
from smpler.datasets.engine.poses.amass import load_amass
from smpler.datasets.engine.poses.archetypes import ARCHETYPES
from smpler.datasets.engine.poses.arms import ARMS
from smpler.datasets.engine.poses.sampler import CAPTURED_SHARES, KEY_SHARE, PoseSampler
from smpler.models.body import OPEN_BODY, load_body
from smpler.utils.joints import SMPL_NAMES

NUM_POSES = 1500
JOINT = {name: number for number, name in enumerate(SMPL_NAMES)}


@pytest.fixture(scope="module")
def sampler() -> PoseSampler:
    return PoseSampler()


@pytest.fixture(scope="module")
def drawn(sampler) -> tuple[np.ndarray, np.ndarray]:
    return sampler.sample_kinds(NUM_POSES, np.random.default_rng(0))


def random_pose(count: int, seed: int = 0, spread: float = 0.6) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (count, len(SMPL_NAMES), 3))


def rotation_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Largest angle between rotations [radians]."""
    a, b = (Rotation.from_rotvec(x.reshape(-1, 3)) for x in (first, second))
    return (a.inv() * b).magnitude().max()


def within_limits(pose: np.ndarray, tolerance: float = 0.01) -> np.ndarray:
    """Which poses respect the interval of every joint but the root [+- degrees]."""
    low, high = np.moveaxis(np.array(anatomy._of_each_joint(anatomy.LIMITS), float), 2, 0)
    angles = anatomy.angles_from_pose(pose)[:, 1:]
    return ((angles >= low - tolerance) & (angles <= high + tolerance)).all((1, 2))


# --- anatomy


def test_angles_and_pose_are_inverse_to_each_other():
    pose = random_pose(50)
    again = anatomy.pose_from_angles(anatomy.angles_from_pose(pose))
    assert rotation_gap(pose, again) < 1e-7


def test_angles_say_swing_and_twist():
    angles = np.zeros((1, 24, 3))
    angles[0, JOINT["L_Shoulder"]] = (30, -60, 0)  # turned about itself, then forward
    pose = anatomy.pose_from_angles(angles)
    turn = Rotation.from_euler("y", -60, degrees=True) * Rotation.from_euler("x", 30, degrees=True)
    np.testing.assert_allclose(pose[0, JOINT["L_Shoulder"]], turn.as_rotvec(), atol=1e-12)
    np.testing.assert_allclose(anatomy.angles_from_pose(pose), angles, atol=1e-9)


def test_clipping_reaches_the_limits_and_leaves_what_is_within():
    wild = anatomy.clip_to_limits(random_pose(200, spread=1.5))
    assert within_limits(wild, 1e-6).all()
    assert rotation_gap(wild, anatomy.clip_to_limits(wild)) < 1e-7


def test_a_broken_knee_is_beyond_the_limits_and_an_arm_behind_the_neck_out_of_reach(sampler):
    pose = np.zeros((4, 24, 3))
    pose[1, JOINT["L_Knee"], 0] = -0.3  # bent forward
    pose[2, JOINT["R_Shoulder"], 1] = -1.0  # straight back at shoulder height
    pose[3, JOINT["R_Shoulder"], 1] = 1.0  # forward
    assert within_limits(pose).tolist() == [True, False, True, True]
    posed = anatomy.forward_kinematics(pose, sampler.rest_joints)
    reached = anatomy.within_reach(anatomy.upper_arm_directions(*posed))
    assert reached.tolist() == [[True, True], [True, True], [True, False], [True, True]]
    assert sampler.is_possible(pose, np.zeros(4, int)).tolist() == [True, True, False, True]


def test_mirrored_angles_are_the_other_sides_angles():
    pose = random_pose(20)
    angles = anatomy.angles_from_pose(pose)
    mirrored = anatomy.angles_from_pose(anatomy.mirror_pose(pose))
    left, right = JOINT["L_Elbow"], JOINT["R_Elbow"]
    np.testing.assert_allclose(mirrored[:, left], angles[:, right], atol=1e-9)


def test_a_mirrored_pose_is_the_mirror_image_of_the_skeleton(sampler):
    pose = random_pose(20)
    joints, _ = anatomy.forward_kinematics(pose, sampler.rest_joints)
    mirrored, _ = anatomy.forward_kinematics(anatomy.mirror_pose(pose), sampler.rest_joints)
    expected = joints[:, anatomy.MIRRORED] * [-1, 1, 1]
    assert np.abs(mirrored - expected).max() < 1e-4, "the mean adult is symmetric to 0.1 mm"


def test_the_skeleton_is_the_open_bodys(sampler):
    body = load_body(OPEN_BODY)
    rest = body.J_regressor @ body.v_template
    assert np.abs(sampler.rest_joints - rest).max() < 1e-3


def test_heading_is_removed_and_tilt_kept():
    tilt = Rotation.from_euler("x", 40, degrees=True)
    for heading in (-170, -60, 0, 90, 179):
        turned = Rotation.from_euler("y", heading, degrees=True) * tilt
        assert (anatomy.remove_heading(turned).inv() * tilt).magnitude() < 1e-7


# --- self collision


def test_a_hand_in_the_belly_is_seen_and_a_tpose_is_free(sampler):
    pose = np.zeros((2, 24, 3))
    pose[1, JOINT["L_Shoulder"]] = (0, -0.5, -1.3)
    pose[1, JOINT["L_Elbow"]] = (0, -1.9, 0)
    angles = anatomy.angles_from_pose(pose)
    angles[1, JOINT["L_Shoulder"], 0] = 80  # the forearm points inwards
    posed = anatomy.forward_kinematics(anatomy.pose_from_angles(angles), sampler.rest_joints)
    free, inside = self_collision.penetration(self_collision.capsule_ends(*posed))
    assert free < 0.0, f"T-pose: {1e3 * free:.0f} mm"
    assert inside > 0.04, f"hand in the belly: {1e3 * inside:.0f} mm"


def test_segment_distance_agrees_with_a_dense_search():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 40, 1, 2, 3))
    share = np.linspace(0, 1, 401)[:, None]
    for a, b, distance in zip(
        first, second, self_collision._segment_distance(first, second), strict=True
    ):
        on_a, on_b = (x[0, 0] + share * (x[0, 1] - x[0, 0]) for x in (a, b))
        dense = np.linalg.norm(on_a[:, None] - on_b[None], axis=-1).min()
        assert abs(distance[0] - dense) < 0.01


# --- what is drawn


def test_every_pose_is_within_limits_and_does_not_run_through_itself(sampler, drawn):
    pose, _ = drawn
    assert np.isfinite(pose).all()
    assert within_limits(pose).all()
    posed = anatomy.forward_kinematics(pose, sampler.rest_joints)
    assert anatomy.within_reach(anatomy.upper_arm_directions(*posed)).all()
    depth = self_collision.penetration(self_collision.capsule_ends(*posed))
    assert depth.max() <= self_collision.SOFT, f"{1e3 * depth.max():.0f} mm"


def test_the_root_is_a_tilt_without_heading(drawn):
    root = Rotation.from_rotvec(drawn[0][:, 0])
    assert np.abs(root.as_quat()[:, 1]).max() < 1e-6


def test_every_kind_appears_as_often_as_stated(sampler, drawn):
    _, kind = drawn
    share = np.bincount(kind, minlength=len(sampler.kinds)) / len(kind)
    total = sum(archetype.weight for archetype in ARCHETYPES.values())
    ruled = 1 - sum(CAPTURED_SHARES[2])
    for number, (name, archetype) in enumerate(ARCHETYPES.items()):
        expected = ruled * (1 - KEY_SHARE) * archetype.weight / total
        spread = 4 * np.sqrt(expected / len(kind))
        assert abs(share[number] - expected) < spread, f"{name}: {share[number]:.3f}"
    others = dict(zip(("captured", "floor"), CAPTURED_SHARES[2], strict=True))
    for name, expected in (others | {"key": ruled * KEY_SHARE}).items():
        assert abs(share[sampler.kinds.index(name)] - expected) < 0.05, name
    assert share[-1] == 0, "no AMASS was given"


def test_standing_people_are_balanced_on_their_feet(sampler):
    pose = sampler.propose(
        np.full(300, sampler.kinds.index("stand")), np.random.default_rng(1)
    ).pose
    joints, _ = anatomy.forward_kinematics(pose, sampler.rest_joints)
    head, ankles = joints[:, JOINT["Head"]], joints[:, [JOINT["L_Ankle"], JOINT["R_Ankle"]]]
    off = np.linalg.norm((head - ankles.mean(axis=1))[:, [0, 2]], axis=1)
    assert np.quantile(off, 0.95) < 0.35, (
        f"the head is {np.quantile(off, 0.95):.2f} m beside the feet"
    )
    foot = joints[:, JOINT["L_Foot"]] - ankles[:, 0]
    other = joints[:, JOINT["R_Foot"]] - ankles[:, 1]
    rest = sampler.rest_joints[JOINT["L_Foot"]] - sampler.rest_joints[JOINT["L_Ankle"]]
    flat = np.abs(np.stack([foot, other])[..., 1] - rest[1]) < 0.01
    assert flat.any(axis=0).mean() > 0.95, "a sole is on the ground"


def test_wrists_cover_the_sphere(sampler, drawn):
    """48 equal cells round the shoulder; in the chest's frame some are out of reach."""
    joints, rotations = anatomy.forward_kinematics(drawn[0], sampler.rest_joints)
    arms = [joints[:, JOINT[f"{s}_Wrist"]] - joints[:, JOINT[f"{s}_Shoulder"]] for s in "LR"]
    left, right = (arm / np.linalg.norm(arm, axis=1, keepdims=True) for arm in arms)
    in_world = cells(np.concatenate([left, right])).sum()
    assert in_world == 48, f"{in_world} of 48 in the world"
    chest = np.concatenate([rotations[:, JOINT["Spine3"]]] * 2)
    outwards = np.einsum("nji,nj->ni", chest, np.concatenate([left, right]))
    outwards[len(right) :] *= (-1, 1, 1)
    in_chest = cells(outwards).sum()
    assert in_chest >= 35, f"{in_chest} of 48 in the chest's frame"


def cells(direction: np.ndarray) -> np.ndarray:
    """Which of 6 x 8 cells of equal area are hit."""
    band = ((direction[:, 1] + 1) / 2 * 6).astype(int).clip(0, 5)
    turn = ((np.arctan2(direction[:, 2], direction[:, 0]) / (2 * np.pi) + 0.5) * 8).astype(int) % 8
    hit = np.zeros((6, 8), bool)
    hit[band, turn] = True
    return hit


def test_body_positions_cover_standing_to_lying(sampler, drawn):
    pose, _ = drawn
    up = Rotation.from_rotvec(pose[:, 0]).apply([0, 1, 0])[:, 1]
    forward = Rotation.from_rotvec(pose[:, 0]).apply([0, 0, 1])[:, 1]
    lying = up < 0.4
    assert 0.04 < lying.mean() < 0.15
    assert (forward[lying] > 0.7).any() and (forward[lying] < -0.7).any(), "on back and belly"
    knee = anatomy.angles_from_pose(pose)[:, [JOINT["L_Knee"], JOINT["R_Knee"]], 0]
    assert (knee > 120).any() and (knee < 5).any()
    head = anatomy.angles_from_pose(pose)[:, [JOINT["Neck"], JOINT["Head"]], 1].sum(1)
    assert head.min() < -50 and head.max() > 50, "heads turn to both sides"


def test_no_two_poses_are_the_same(drawn):
    rounded = np.round(drawn[0].reshape(len(drawn[0]), -1), 3)
    assert len(np.unique(rounded, axis=0)) == len(rounded)


def test_the_same_generator_gives_the_same_pose_and_another_another(sampler):
    first, second, other = (
        sampler.sample(np.random.default_rng([7, index])) for index in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0.01
    again = PoseSampler().sample(np.random.default_rng([7, 3]))
    np.testing.assert_array_equal(first, again)


def test_weights_of_arms_and_archetypes_are_shares():
    assert sum(rule.weight for rule in ARMS.values()) == pytest.approx(1, abs=0.01)
    for name, archetype in ARCHETYPES.items():
        assert sum(archetype.arms.values()) <= 1, name
        assert archetype.arms.keys() <= ARMS.keys(), name


# --- AMASS


def write_amass(path, width: int = 156, frames: int = 120, rate: float = 120.0, **changes):
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.3, (frames, width))
    upright = Rotation.from_euler("xz", (90, 70), degrees=True)  # y up to z up, then a heading
    poses[:, :3] = upright.as_rotvec()
    arrays = {"poses": poses, "mocap_framerate": rate, "trans": np.zeros((frames, 3))} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return poses


@pytest.mark.parametrize("width", [72, 156, 165])
def test_amass_is_read_thinned_and_turned_upright(tmp_path, width):
    poses = write_amass(tmp_path / "walk.npz", width)
    read = load_amass(tmp_path / "walk.npz", frames_per_second=6)
    assert read.shape == (6, 24, 3)
    np.testing.assert_allclose(read[:, 1:22].reshape(6, -1), poses[::20, 3:66], atol=1e-6)
    assert np.abs(read[:, 0]).max() < 1e-6, "AMASS's upright, whatever its heading, is no tilt"
    if width != 72:
        assert np.abs(read[:, 22:]).max() == 0, "hands are flat"


def test_a_folder_of_amass_is_drawn_from(tmp_path):
    (tmp_path / "set" / "subject").mkdir(parents=True)
    write_amass(tmp_path / "set" / "subject" / "a.npz")
    write_amass(tmp_path / "set" / "subject" / "b.npz", frames=60)
    np.savez(tmp_path / "set" / "subject" / "shape.npz", betas=np.zeros(10))
    sampler = PoseSampler(amass=tmp_path / "set", amass_share=0.5)
    assert len(sampler.amass) == 9
    pose, kind = sampler.sample_kinds(200, np.random.default_rng(0))
    from_amass = kind == sampler.kinds.index("amass")
    assert 0.35 < from_amass.mean() < 0.65
    mirrored = anatomy.mirror_pose(sampler.amass.astype(np.float64))
    known = np.concatenate([sampler.amass, mirrored]).reshape(18, -1)
    for one in pose[from_amass][:20]:
        assert np.abs(known - one.ravel()).max(1).min() < 1e-12


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"poses": None}, "no `poses`"),
        ({"mocap_framerate": None}, "no positive `mocap_framerate`"),
        ({"mocap_framerate": 0.0}, "no positive `mocap_framerate`"),
        ({"poses": np.zeros((5, 66))}, "(5, 66)"),
        ({"poses": np.zeros((0, 156))}, "(0, 156)"),
        ({"poses": np.full((5, 156), np.nan)}, "no rotations"),
        ({"poses": np.full((5, 156), 90.0)}, "no rotations"),
    ],
)
def test_a_bad_amass_file_gives_one_sentence(tmp_path, changes, reason):
    write_amass(tmp_path / "bad.npz", **changes)
    with pytest.raises(ValueError) as error:
        load_amass(tmp_path / "bad.npz")
    message = str(error.value)
    assert "bad.npz" in message and reason in message and "\n" not in message


def test_a_file_that_is_no_npz_gives_one_sentence(tmp_path):
    for number, content in enumerate((b"", b"no archive", b"PK\x03\x04cut off")):
        (tmp_path / f"{number}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=f"{number}.npz is no usable AMASS file"):
            load_amass(tmp_path)
        (tmp_path / f"{number}.npz").unlink()


def test_an_object_array_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "evil.npz", poses=np.array([{}], dtype=object), mocap_framerate=30.0)
    with pytest.raises(ValueError, match="evil.npz is no usable AMASS file"):
        load_amass(tmp_path / "evil.npz")


def test_a_folder_without_poses_and_a_missing_one_say_so(tmp_path):
    with pytest.raises(ValueError, match="holds no npz with `poses`"):
        load_amass(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such AMASS file or folder"):
        load_amass(tmp_path / "absent")
