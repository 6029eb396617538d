import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from smpler.models.body import Body, body_from_arrays, open_body
from smpler.models.smpl import SMPL
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.joints import SMPL_PARENTS
from tests.conftest import tiny_arrays
from tests.support.standin import GOLDEN


def random_pose(batch: int, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(batch, 72, generator=generator, dtype=torch.float64) * 0.4
    betas = torch.randn(batch, 10, generator=generator, dtype=torch.float64)
    return pose.to(dtype), betas.to(dtype)


def pose_by_loops(body: Body, pose: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SMPL's equations for one body, vertex by vertex, joint by joint, in float64."""
    rotations = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    shaped = body.v_template.astype(np.float64) + body.shapedirs.astype(np.float64) @ betas
    rest = body.J_regressor.astype(np.float64) @ shaped
    feature = (rotations[1:] - np.eye(3)).reshape(-1)
    chain = []
    for joint, parent in enumerate(SMPL_PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = rest[joint] - (rest[parent] if parent >= 0 else 0)
        chain.append(local if parent < 0 else chain[parent] @ local)
    vertices = []
    for v in range(body.num_vertices):
        corrected = shaped[v] + body.posedirs[v].astype(np.float64) @ feature
        posed = np.zeros(3)
        for joint in range(24):
            relative = corrected - rest[joint]
            here = chain[joint][:3, :3] @ relative + chain[joint][:3, 3]
            posed += float(body.lbs_weights[v, joint]) * here
        vertices.append(posed)
    return np.array(vertices), np.array([transform[:3, 3] for transform in chain])


def test_skinning_matches_a_per_vertex_loop(tiny_body):
    pose, betas = random_pose(3)
    posed = SMPL(tiny_body).double()(pose, betas)
    for i in range(3):
        vertices, joints = pose_by_loops(tiny_body, pose[i].numpy(), betas[i].numpy())
        error = max(
            np.abs(posed.vertices[i].numpy() - vertices).max(),
            np.abs(posed.joints[i].numpy() - joints).max(),
        )
        # weights are float32 and sum to 1 within 1e-7; the loop does not divide by their sum
        assert error < 1e-6, error


@pytest.mark.parametrize("which", ["stand-in", "open"])
def test_layer_matches_stored_outputs_of_smplx(which, standin_body):
    golden = np.load(GOLDEN / "smplx.npz")
    body = open_body() if which == "open" else standin_body
    pose, betas = torch.from_numpy(golden["pose"]), torch.from_numpy(golden["betas"])
    posed = SMPL(body).double()(pose, betas)
    vertices = np.abs(posed.vertices.numpy()[:, ::50] - golden[f"{which}.vertices[::50]"]).max()
    joints = np.abs(posed.joints.numpy() - golden[f"{which}.joints"]).max()
    assert max(vertices, joints) < 1e-6, (vertices, joints)


@pytest.mark.smplx
@pytest.mark.parametrize("which", ["stand-in", "open"])
def test_layer_matches_smplx_itself(which, standin_body):
    from tests.support.smplx_oracle import smplx_outputs

    body = open_body() if which == "open" else standin_body
    pose, betas = random_pose(4)
    vertices, joints = smplx_outputs(body, pose, betas)
    posed = SMPL(body).double()(pose, betas)
    error = max(
        (posed.vertices - vertices).abs().max().item(), (posed.joints - joints).abs().max().item()
    )
    assert error < 1e-6, error
    print(f"{which} body, largest difference from smplx: {error:.1e} m")


def test_gradients_are_right_also_in_the_rest_pose(tiny_body):
    layer = SMPL(tiny_body).double()
    pose, betas = random_pose(2)
    pose[1] = 0

    def outputs(pose, betas):
        posed = layer(pose, betas)
        return posed.vertices, posed.joints, posed.keypoints_3d, posed.pelvis

    assert torch.autograd.gradcheck(outputs, (pose.requires_grad_(), betas.requires_grad_()))


def test_skeleton_alone_equals_the_full_path(standin_body):
    layer = SMPL(standin_body)
    pose, betas = random_pose(4, torch.float32)
    rotmat = axis_angle_to_rotmat(pose.unflatten(1, (24, 3)))
    cam = torch.tensor([[0.9, 0.1, 0.2]]).expand(4, -1)
    full = layer.estimate(rotmat, betas, cam)
    skeleton = layer.estimate(rotmat, betas, cam, parts="skeleton")
    assert skeleton.vertices is None and skeleton.keypoints_3d is None
    for i in range(4):
        rest = standin_body.v_template + standin_body.shapedirs @ betas[i].numpy()
        # the root is where the regressor puts it in the shaped rest pose
        root = standin_body.J_regressor[0] @ rest
        error = np.abs(skeleton.joints[i, 0].numpy() - root).max()
        assert error < 1e-6, error
    error = (full.joints - skeleton.joints).abs().max().item()
    assert error < 1e-6, error
    assert torch.equal(full.joints_2d, skeleton.joints_2d)


def test_axis_angle_and_matrices_pose_alike(tiny_body):
    layer = SMPL(tiny_body).double()
    pose, betas = random_pose(2)
    matrices = axis_angle_to_rotmat(pose.unflatten(1, (24, 3)))
    assert torch.equal(layer(pose, betas).vertices, layer(matrices, betas).vertices)


def test_batch_of_two_is_two_batches_of_one(standin_body):
    layer = SMPL(standin_body)
    pose, betas = random_pose(2, torch.float32)
    both = layer(pose, betas).vertices
    alone = torch.cat([layer(pose[i : i + 1], betas[i : i + 1]).vertices for i in range(2)])
    error = (both - alone).abs().max().item()
    assert error < 1e-6, error


def test_no_array_of_the_body_is_in_the_state_dict(standin_body):
    layer = SMPL(standin_body)
    assert not layer.state_dict() and not list(layer.parameters())


def test_double_precision_forgets_the_float32_it_came_from(tiny_body):
    pose, betas = random_pose(1)
    went_through_float32 = SMPL(tiny_body).float().double()(pose, betas).joints[0].numpy()
    _, joints = pose_by_loops(tiny_body, pose[0].numpy(), betas[0].numpy())
    error = np.abs(went_through_float32 - joints).max()
    assert error < 1e-14, error


def test_a_body_of_any_number_of_vertices_without_regressor_gives_no_keypoints():
    layer = SMPL(body_from_arrays(tiny_arrays(num_vertices=7), name="seven"))
    posed = layer(torch.zeros(1, 72), torch.zeros(1, 10))
    assert posed.vertices.shape == (1, 7, 3)
    assert posed.keypoints_3d is None and posed.pelvis is None


def test_an_empty_batch_is_an_empty_answer(tiny_body):
    posed = SMPL(tiny_body)(torch.zeros(0, 72), torch.zeros(0, 10))
    assert posed.vertices.shape == (0, 20, 3)


@pytest.mark.parametrize("which", ["stand-in", "open"])
def test_keypoints_without_vertices_are_those_regressed_from_them(which, standin_body):
    layer = SMPL(open_body() if which == "open" else standin_body)
    pose, betas = random_pose(4)
    rotmat = axis_angle_to_rotmat(pose.unflatten(1, (24, 3)))
    cam = torch.tensor([[0.9, 0.1, 0.2]], dtype=torch.float64).expand(4, -1)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        layer = layer.to(dtype)
        given = (rotmat.to(dtype), betas.to(dtype), cam.to(dtype))
        full, without = layer.estimate(*given), layer.estimate(*given, parts="keypoints")
        assert without.vertices is None
        for field in ("keypoints_3d", "keypoints_2d", "pelvis", "joints", "joints_2d"):
            error = (getattr(full, field) - getattr(without, field)).abs().max().item()
            assert error < tolerance, (field, error)


def test_keypoints_without_vertices_have_the_same_gradients(tiny_body):
    layer = SMPL(tiny_body).double()
    pose, betas = random_pose(2)
    rotmat = axis_angle_to_rotmat(pose.unflatten(1, (24, 3)))
    inputs = (rotmat.requires_grad_(), betas.requires_grad_())
    weight = torch.linspace(-1, 1, 2 * 14 * 3, dtype=torch.float64).view(2, 14, 3)
    gradients = [
        torch.autograd.grad((path(*inputs).keypoints_3d * weight).sum(), inputs)
        for path in (layer, layer.keypoints)
    ]
    for full, without in zip(*gradients, strict=True):
        error = (full - without).abs().max().item()
        assert error < 1e-10, error
