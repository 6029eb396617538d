import numpy as np
import pytest

from benchmarks.data_diversity import nearest_angle
from smpler.datasets.engine.poses import anatomy, balance, self_collision
from smpler.datasets.engine.poses.captured import NUM_NUMBERS, CapturedPoses, numbers_of
from smpler.datasets.engine.poses.sampler import MOST_OVERHANG, VERSIONS, PoseSampler
from smpler.utils.joints import SMPL_NAMES
from tests.datasets.engine.poses.test_sampler import within_limits

JOINT = {name: number for number, name in enumerate(SMPL_NAMES)}
KINDS = [PoseSampler.kinds.index(name) for name in MOST_OVERHANG]
"""What only version 2 draws."""
# Joint -> angles of `anatomy` [degrees].
DONE_BY_PEOPLE = {
    "throw": {
        "L_Hip": (-35, 10, 5), "R_Hip": (15, 5, 10), "L_Knee": (40, 0, 0), "R_Knee": (30, 0, 0),
        "Spine1": (20, 5, 0), "L_Shoulder": (-30, -50, -30), "R_Shoulder": (-60, 20, 10),
        "L_Elbow": (10, -60, 0), "R_Elbow": (0, -70, 0), "R_Wrist": (0, 0, 30),
    },
    "crouch": {
        "L_Hip": (-70, 10, 15), "R_Hip": (-50, -5, 10), "L_Knee": (80, 0, 0), "R_Knee": (90, 0, 0),
        "Spine1": (30, 0, 5), "Neck": (-20, 10, 0), "L_Shoulder": (-40, -40, -45),
        "R_Shoulder": (-40, -20, -50), "L_Elbow": (20, -60, 0), "R_Elbow": (20, -50, 0),
        "L_Ankle": (-20, 5, -5), "R_Ankle": (-20, 10, 0),
    },
    "kick": {
        "L_Hip": (-80, 10, 20), "L_Knee": (30, 0, 0), "R_Hip": (5, -10, 5), "R_Knee": (20, 0, 0),
        "Spine1": (5, 0, 5), "L_Shoulder": (-30, -20, -30), "R_Shoulder": (-30, -30, -50),
        "L_Elbow": (15, -60, 0), "R_Elbow": (15, -70, 0), "R_Ankle": (-10, 5, 0),
    },
}  # fmt: skip
OPEN_1 = ((0, 2.434245, 6.587524), (1, -2.17216, 13.088111), (1999, -1.773767, 15.975251))
"""Seeds and, of the poses they give, the sums of components and of their squares [radians], as they
were before there was a version 2."""


@pytest.fixture(scope="module")
def sampler() -> PoseSampler:
    return PoseSampler()


def test_poses_of_version_1_never_change():
    first = PoseSampler(version=1)
    for index, total, squares in OPEN_1:
        pose = first.sample(np.random.default_rng([2024, 1, index]))
        assert pose.sum() == pytest.approx(total, abs=2e-6), f"sample {index} has another pose"
        assert (pose**2).sum() == pytest.approx(squares, abs=2e-6), f"sample {index}"
    _, kind = first.sample_kinds(500, np.random.default_rng(0))
    assert not np.isin(kind, KINDS).any(), "version 1 knows no motion capture"


def test_an_unknown_version_is_named():
    with pytest.raises(ValueError, match="version is 3; there are 1 and 2"):
        PoseSampler(version=3)


@pytest.mark.parametrize("name", MOST_OVERHANG)
def test_captured_poses_are_within_limits_free_of_themselves_and_stand(sampler, name):
    kind = np.full(300, sampler.kinds.index(name))
    drawn = sampler.propose(kind, np.random.default_rng(0))
    pose = drawn.pose[drawn.possible]
    assert len(pose) > 60, f"{len(pose)} of 300 are possible"
    assert within_limits(pose).all()
    posed = anatomy.forward_kinematics(pose, sampler.rest_joints)
    ends = self_collision.capsule_ends(*posed)
    assert anatomy.within_reach(anatomy.upper_arm_directions(*posed)).all()
    depth = self_collision.penetration(ends).max()
    assert depth <= self_collision.SOFT, f"{1e3 * depth:.0f} mm deep"
    overhang = balance.overhang(posed[0], ends).max()
    assert overhang <= MOST_OVERHANG[name], f"{overhang:.2f} m beside its support"


def test_the_floor_is_for_bodies_that_are_not_upright(sampler):
    captured, floor = (
        np.linalg.norm(
            sampler._captured.draw(400, np.random.default_rng(0), on_floor)[:, 0], axis=1
        )
        for on_floor in (False, True)
    )
    middle = np.rad2deg([np.median(captured), np.median(floor)])
    assert middle[0] < 25 and middle[1] > 55, middle


def test_numbers_are_drawn_with_the_mean_and_spread_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    mean = numbers_of(0.1 * rng.standard_normal((1, 24, 3)))
    along = np.zeros((1, NUM_NUMBERS, 1))
    along[0, 3 * (JOINT["L_Hip"] - 1)] = along[0, 3 * (JOINT["R_Hip"] - 1)] = 6.0
    group = {"mean": mean, "directions": along, "rest": np.full((1, NUM_NUMBERS), 0.01)}
    groups = {name: np.concatenate([value, value]) for name, value in group.items()}
    groups |= {"floor": np.array([False, True]), "weight": np.ones(2)}
    path = tmp_path / "statistics.npz"
    np.savez(path, **groups)
    numbers = numbers_of(CapturedPoses(path).draw(4000, rng))
    inside = np.abs(mean[0] - np.median(numbers, axis=0))
    assert np.quantile(inside, 0.9) < 0.3, "the mean; a few joints are at their limits"
    left, right = (numbers[:, 3 * (JOINT[f"{side}_Hip"] - 1)] for side in "LR")
    assert left.std() == pytest.approx(6, rel=0.1)
    assert np.corrcoef(left, right)[0, 1] > 0.99, "both hips go together, as the direction says"


def test_version_2_is_nearer_to_what_people_do_and_more_diverse():
    angles = np.zeros((len(DONE_BY_PEOPLE), 24, 3))
    for number, joints in enumerate(DONE_BY_PEOPLE.values()):
        for joint, value in joints.items():
            angles[number, JOINT[joint]] = value
    targets = anatomy.pose_from_angles(angles)
    drawn = {v: PoseSampler(version=v).sample_batch(1500, np.random.default_rng(1)) for v in (1, 2)}
    one, two = (nearest_angle(targets, drawn[v]).mean() for v in VERSIONS)
    assert two < one - 1, f"{one:.1f} and {two:.1f} degrees to the nearest"
    one, two = (nearest_angle(drawn[v][:300], drawn[v][300:]).mean() for v in VERSIONS)
    assert two > one, f"{one:.1f} and {two:.1f} degrees between poses of a version"


def test_overhang_is_the_way_to_the_nearest_support(sampler):
    pose = np.zeros((3, 24, 3))
    pose[1, 0, 0] = 0.3  # leaning forward
    pose[2, 0, 0] = -np.pi / 2  # on the back
    posed = anatomy.forward_kinematics(pose, sampler.rest_joints)
    upright, leaning, lying = balance.overhang(posed[0], self_collision.capsule_ends(*posed))
    assert upright < 0.02 and lying < 0.05, f"{upright:.2f} and {lying:.2f} m"
    assert 0.1 < leaning < 0.35, f"{leaning:.2f} m"
