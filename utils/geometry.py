"""Rotations, the crop camera and normals of meshes.

Frame of everything 3D: the camera's, metres, x right, y down, z away from the camera.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

CAMERA_TO_Y_UP = np.array([1.0, -1.0, -1.0])
"""From the camera's frame (y down, z away) to a viewer's (y up, facing +z): half a turn about x."""


def axis_angle_to_rotmat(axis_angle: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation matrices of axis-angle vectors in radians (Rodrigues' formula).

    sin(t) / t and (1 - cos(t)) / t^2 are written with sinc, so value and gradient hold at t = 0.
    """
    angle = torch.linalg.vector_norm(axis_angle, dim=-1)[..., None, None]
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    sine = torch.sinc(angle / torch.pi)
    versine = 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2
    return identity + sine * skew + versine * (skew @ skew)


def rotmat_to_quaternion(rotmat: Float[np.ndarray, "*n 3 3"]) -> Float64[np.ndarray, "*n 4"]:
    """Unit quaternions x, y, z, w of rotation matrices, w >= 0.

    The quaternion that fits the matrix best, the eigenvector of Bar-Itzhack (J. Guidance, Control,
    and Dynamics 23(6), 2000): as exact near 0 and pi as elsewhere.
    """
    m = np.moveaxis(np.asarray(rotmat, np.float64), (-2, -1), (0, 1))
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    skew = np.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    fit = np.empty((4, 4, *trace.shape))
    fit[:3, :3] = m + m.swapaxes(0, 1) - trace * np.eye(3).reshape(3, 3, *[1] * trace.ndim)
    fit[:3, 3] = fit[3, :3] = skew
    fit[3, 3] = trace
    _, vectors = np.linalg.eigh(np.moveaxis(fit, (0, 1), (-2, -1)))
    quaternion = vectors[..., -1]  # of the largest eigenvalue
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def rotmat_to_axis_angle(rotmat: Float[np.ndarray, "*n 3 3"]) -> Float64[np.ndarray, "*n 3"]:
    """Axis-angle vectors in radians, no longer than pi, of rotation matrices."""
    quaternion = rotmat_to_quaternion(rotmat)
    xyz, w = quaternion[..., :3], quaternion[..., 3:]
    sine = np.linalg.norm(xyz, axis=-1, keepdims=True)
    # sin(t / 2) vanishes with the angle t, whose vector is then 2 * xyz
    ratio = np.divide(2 * np.arctan2(sine, w), sine, out=np.full_like(sine, 2.0), where=sine > 0)
    return xyz * ratio


def rotation_angle(
    first: Float[Tensor, "*n 3 3"], second: Float[Tensor, "*n 3 3"]
) -> Float[Tensor, "*n"]:
    """Angles between rotations, radians, [0, pi]."""
    between = first.mT @ second
    x, y, z = (between - between.mT)[..., (2, 0, 1), (1, 2, 0)].unbind(-1)
    cosine = between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return torch.atan2((x.square() + y.square() + z.square()).sqrt(), cosine)


def nearest_rotation(matrix: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """The rotation with the least sum of squared differences from a matrix, never a reflection."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vh).sign()  # of the direction that costs least to turn round
    u = torch.cat([u[..., :2], u[..., 2:] * sign[..., None, None]], dim=-1)
    return u @ vh


def rot6d_to_rotmat(rot6d: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation matrices of 6D representations (Zhou et al., CVPR 2019), by Gram-Schmidt.

    The six numbers are a 3 x 2 matrix, row-major, whose columns span the rotation's first two;
    [1, 0, 0, 1, 0, 0] is the identity.
    """
    first, second = rot6d.unflatten(-1, (3, 2)).unbind(-1)
    x = F.normalize(first, dim=-1)
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], dim=-1)


def rotmat_to_rot6d(rotmat: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 6"]:
    """The first two columns of each rotation, stored as a 3 x 2 matrix, row-major."""
    return rotmat[..., :2].flatten(-2)


def project(points: Float[Tensor, "b n 3"], cam: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 2"]:
    """Weak-perspective projection: scale * ((x, y) + translation), depth ignored.

    Args:
        points: camera frame, metres.
        cam: (scale, tx, ty); tx and ty in metres.

    Returns:
        Crop coordinates, x right, y down, [-1, 1] from edge to edge of the crop.
    """
    scale, translation = cam[:, None, :1], cam[:, None, 1:]
    return scale * (points[..., :2] + translation)


def vertex_normals(
    vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "b v 3"]:
    """Unit normals that point outwards: the mean of the adjacent faces' normals, weighted by area.

    Faces wind counter-clockwise seen from outside. A vertex without a face has the normal 0.
    """
    corners = vertices.transpose(0, 1)[faces.long()]  # (f, 3, b, 3): corners of each face
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = torch.linalg.cross(first, second)  # their length is twice the face's area
    # Summed per vertex in the order of the faces, so that a GPU gives the same sum every time.
    order = faces.long().flatten().argsort(stable=True)
    valence = faces.long().flatten().bincount(minlength=vertices.shape[1])
    of_corners = normals[order // 3].flatten(1)  # (f, b, 3) -> (3 * f, b * 3): vertex by vertex
    sums = torch.segment_reduce(  # ty: ignore[missing-attribute]  # absent from torch's stubs
        of_corners, "sum", lengths=valence, initial=0.0
    )
    return F.normalize(sums.unflatten(1, (-1, 3)).transpose(0, 1), dim=-1)
