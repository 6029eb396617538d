from dataclasses import replace

import numpy as np
import pytest
import torch

from smpler.models.body import Body, open_body
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS
from smpler.utils.rig import Motion, four_largest, normals_of, skinning_error


def some_pose(num_frames: int, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """Rotations (t, 24, 3, 3), the first about half a turn about x: upright before the camera."""
    pose = np.random.default_rng(seed).normal(0, spread, (num_frames, 24, 3))
    pose[:, 0, 0] += np.pi
    return axis_angle_to_rotmat(torch.from_numpy(pose)).float().numpy()


def pose_by_layer(body: Body, rotmat: np.ndarray, betas: np.ndarray) -> tuple:
    """Vertices and joints by the body layer, float64 inside."""
    layer, shape = SMPL(body).double(), torch.from_numpy(betas).double()
    with torch.no_grad():
        posed = layer(torch.from_numpy(rotmat).double(), shape.expand(len(rotmat), 10))
    return posed.vertices.float().numpy(), posed.joints.float().numpy()


BETAS = np.random.default_rng(5).normal(size=10).astype(np.float32)


def test_four_weights_are_the_largest_and_add_up_to_one():
    weights = np.random.default_rng(0).random((50, 24)).astype(np.float32) ** 4
    weights[7] = 0
    weights[7, [3, 9]] = 0.25, 0.75
    weights /= weights.sum(axis=1, keepdims=True)
    index, shares = four_largest(weights)
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-6
    for row, joints, kept in zip(weights, index, shares, strict=True):
        largest = sorted(range(24), key=lambda joint, row=row: -row[joint])[:4]
        used = [joint for joint in largest if row[joint] > 0]
        assert joints[: len(used)].tolist() == used and not joints[len(used) :].any()
        error = np.abs(kept[: len(used)] - row[used] / row[used].sum()).max()
        assert error < 1e-6 and not kept[len(used) :].any(), error


def test_a_vertex_of_two_joints_keeps_the_weight_of_the_first_joint(tiny_body):
    """Empty places name joint 0, which may be among the two."""
    weights = np.zeros((20, 24), np.float32)
    weights[:, 0], weights[:, 1] = 0.3, 0.7
    rig = replace(tiny_body, lbs_weights=weights).rig(BETAS)
    assert np.allclose(rig.dense_weights, weights)


def test_a_rig_bends_as_a_loop_over_vertices_does(tiny_body):
    """Each vertex moves with its joints: turned about each one's place at rest."""
    rig, rotmat = tiny_body.rig(BETAS), some_pose(3)
    posed = rig.posed(rotmat)
    for frame in range(3):
        turned, place = {}, {}
        for joint, parent in enumerate(SMPL_PARENTS):
            own = rotmat[frame, joint].astype(float)
            turned[joint] = own if parent < 0 else turned[parent] @ own
            bone = rig.joints[joint] - rig.joints[parent]
            place[joint] = rig.joints[0] if parent < 0 else place[parent] + turned[parent] @ bone
        for vertex, rest in enumerate(rig.vertices):
            expected = sum(
                weight * (turned[joint] @ (rest - rig.joints[joint]) + place[joint])
                for joint, weight in zip(
                    rig.joint_index[vertex], rig.joint_weights[vertex], strict=True
                )
            )
            error = np.abs(posed[frame, vertex] - expected).max()
            assert error < 1e-6, (frame, vertex, error)


def test_joints_and_shape_are_those_of_the_layer(tiny_body):
    rig, rest = tiny_body.rig(BETAS), np.eye(3, dtype=np.float32)[None].repeat(24, 0)[None]
    vertices, joints = pose_by_layer(tiny_body, rest, BETAS)
    assert np.abs(rig.vertices - vertices[0]).max() < 1e-6
    assert np.abs(rig.joints - joints[0]).max() < 1e-6
    assert rig.names == SMPL_NAMES
    rotmat = some_pose(2)
    _, joints = pose_by_layer(tiny_body, rotmat, BETAS)
    turned, moved = rig.transforms(rotmat)
    posed = np.einsum("tjab,jb->tja", turned, rig.joints) + moved
    error = np.abs(posed - joints).max()
    assert error < 1e-6, error


@pytest.mark.parametrize("which", ["open", "tiny"])
def test_a_rest_mesh_made_for_a_pose_bends_into_exactly_the_bodys_mesh(which, tiny_body):
    """Of the open body with its correctives; of one whose vertices 24 joints move."""
    body = tiny_body if which == "tiny" else open_body()
    rig, rotmat = body.rig(BETAS), some_pose(1)
    vertices, _ = pose_by_layer(body, rotmat, BETAS)
    rest, normals = rig.unposed(vertices[0], rotmat[0])
    away = np.linalg.norm(replace(rig, vertices=rest).posed(rotmat)[0] - vertices[0], axis=1)
    before = np.linalg.norm(rig.posed(rotmat)[0] - vertices[0], axis=1)
    assert away.max() < 1e-5 < 1e-3 < before.max(), (which, away.max(), before.max())
    (blended, _), *_ = rig._blended(rotmat)
    seen = np.einsum("vab,vb->va", blended, normals)
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9)
    # where the skin is not flattened, the bent normals are those of the bent mesh
    whole = np.linalg.norm(np.linalg.inv(blended), axis=(1, 2)) < 100
    error = np.abs(seen - normals_of(vertices[0], rig.faces))[whole].max()
    assert whole.mean() > 0.9 and error < 1e-3, (which, error, whole.mean())


@pytest.mark.parametrize("which", ["open", "tiny"])
def test_the_stated_error_is_the_distance_from_the_layers_vertices(which, tiny_body):
    body = tiny_body if which == "tiny" else open_body()
    rig, rotmat = body.rig(BETAS), some_pose(2)
    vertices, _ = pose_by_layer(body, rotmat, BETAS)
    distances = np.linalg.norm(rig.posed(rotmat) - vertices, axis=-1)
    error = skinning_error(rig, rotmat)
    assert error.mean == pytest.approx(distances.mean(), rel=1e-4, abs=1e-7), (which, error)
    assert error.largest == pytest.approx(distances.max(), rel=1e-4, abs=1e-6), (which, error)
    assert error.largest > 1e-3


def test_a_motion_has_y_up_and_faces_the_viewer():
    """Somebody upright who faces the camera is not turned; right stays right, up is up."""
    to_camera = some_pose(1, spread=0.0)
    motion = Motion.of(to_camera, np.array([[0.5, -0.7, 3.0]]))
    assert np.allclose(motion.rotations[0, 0], np.eye(3), atol=1e-6)
    assert motion.root.tolist() == [[0.5, 0.7, -3.0]]
    rotmat = some_pose(4)
    assert np.array_equal(Motion.of(rotmat, np.zeros((4, 3))).rotations[:, 1:], rotmat[:, 1:])
