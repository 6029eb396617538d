"""Pose correctives: the difference of SMPL's skinning from MakeHuman's rig, linear in the pose."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from scripts.build.open_body.driven_rig import DrivenRig
from scripts.build.open_body.symmetry import mirror_posedirs
from smpler.models.smpl import SMPL
from smpler.utils.joints import NUM_BETAS, SMPL_NAMES

RIDGE = 3e-4
"""Weight of the squared coefficients, per pose."""
SMALLEST = 2e-4
"""Coefficients [m] below this are set to zero: 98 % of them, which makes the file small."""
BATCH = 25
"""Poses that are evaluated at a time."""
NUM_FEATURES = 9 * (len(SMPL_NAMES) - 1)


def pose_features(pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n 207"]:
    """SMPL's pose features: rotation matrices minus identity of all joints but the root."""
    rotmat = Rotation.from_rotvec(pose[:, 1:].reshape(-1, 3)).as_matrix() - np.eye(3)
    return rotmat.reshape(len(pose), -1)


def residuals(
    driven: DrivenRig, layer: SMPL, pose: Float[np.ndarray, "n 24 3"]
) -> Float[np.ndarray, "n v 3"]:
    """Return the template's offsets that bring the layer's vertices to the driven rig's."""
    result = np.empty((len(pose), layer.num_vertices, 3), np.float32)
    for start in range(0, len(pose), BATCH):
        batch = pose[start : start + BATCH]
        error = driven.pose(batch) - posed_vertices(layer, batch)
        turn = nearest_rotation(blended_rotations(layer, batch))
        result[start : start + BATCH] = (turn.swapaxes(-1, -2) @ error[..., None])[..., 0]
    return result


def pose_people(
    layer: SMPL, pose: Float[np.ndarray, "n 24 3"], betas: Float[np.ndarray, "n 10"]
) -> tuple[Float[np.ndarray, "n v 3"], Float[np.ndarray, "n 24 3"]]:
    """Return the vertices (float32) and joints of people in poses."""
    vertices = np.empty((len(pose), layer.num_vertices, 3), np.float32)
    joints = np.empty((len(pose), len(SMPL_NAMES), 3))
    for start in range(0, len(pose), BATCH):
        rows = slice(start, start + BATCH)
        flat = torch.from_numpy(pose[rows].reshape(-1, 3 * len(SMPL_NAMES)))
        posed = layer(flat, torch.from_numpy(betas[rows]))
        vertices[rows], joints[rows] = posed.vertices.numpy(), posed.joints.numpy()
    return vertices, joints


def posed_vertices(layer: SMPL, pose: Float[np.ndarray, "n 24 3"]) -> Float[np.ndarray, "n v 3"]:
    """Pose the mean body."""
    return pose_people(layer, pose, np.zeros((len(pose), NUM_BETAS)))[0]


def blended_rotations(layer: SMPL, pose) -> Float[np.ndarray, "n v 3 3"]:
    """Return the linear part of each vertex's own transform."""
    rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()
    rotmat = torch.from_numpy(rotmat.reshape(-1, len(SMPL_NAMES), 3, 3))
    _, transforms = layer.skeleton(rotmat, torch.zeros(len(pose), NUM_BETAS, dtype=rotmat.dtype))
    return (layer.lbs_weights @ transforms[..., :3].flatten(2)).unflatten(2, (3, 3)).numpy()


def nearest_rotation(matrix: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Bring matrices that are nearly rotations to the nearest ones, by Newton's iteration."""
    for _ in range(4):
        matrix = (matrix + np.linalg.inv(matrix + 1e-6 * np.eye(3)).swapaxes(-1, -2)) / 2
    return matrix


def fit_posedirs(
    driven: DrivenRig, layer: SMPL, pose: Float[np.ndarray, "n 24 3"], mirror: np.ndarray
) -> Float[np.ndarray, "v 3 207"]:
    """Fit each vertex's correctives by ridge regression on the joints that may touch it."""
    target = residuals(driven, layer, pose)
    features = pose_features(pose)
    posedirs = np.zeros((layer.num_vertices, 3, features.shape[1]), np.float32)
    touching, group = np.unique(touching_joints(driven, layer), axis=0, return_inverse=True)
    for number, joints in enumerate(touching):
        columns = np.flatnonzero(np.repeat(joints[1:], 9))
        vertices = np.flatnonzero(group.ravel() == number)
        design = features[:, columns]
        gram = design.T @ design + RIDGE * len(pose) * np.eye(len(columns))
        fit = np.linalg.solve(gram, design.T @ target[:, vertices].reshape(len(pose), -1))
        fit = fit.reshape(len(columns), len(vertices), 3)
        posedirs[np.ix_(vertices, range(3), columns)] = np.moveaxis(fit, 0, -1)
    posedirs = (posedirs + mirror_posedirs(posedirs, mirror)) / 2
    return np.where(np.abs(posedirs) > SMALLEST, posedirs, 0)


def touching_joints(driven: DrivenRig, layer: SMPL) -> Bool[np.ndarray, "v 24"]:
    """Say which joints may correct a vertex: those that move it, or turn its bones."""
    turning = driven.rig.weights @ driven.turned_by()
    touching = np.maximum(layer.lbs_weights.numpy(), turning) > 0.02
    touching[:, 0] = False  # the root turns all vertices alike
    return touching
