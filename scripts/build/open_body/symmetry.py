"""The left-right symmetry of body and pose: x -> -x."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from smpler.utils.joints import SMPL_NAMES, mirrored

REFLECT = np.array([-1.0, 1, 1])
MIRRORED_JOINTS = list(mirrored(SMPL_NAMES))


def mirrored_vertices(vertices: Float[np.ndarray, "v 3"]) -> Int[np.ndarray, "v"]:
    """Index of each vertex's mirror image.

    Raises:
        ValueError: the mesh is not symmetric to 0.1 mm.
    """
    distance, index = cKDTree(vertices).query(vertices * REFLECT)
    if distance.max() > 1e-4 or not np.array_equal(index[index], np.arange(len(vertices))):
        raise ValueError(
            f"The mesh has a vertex {1e3 * distance.max():.2f} mm from its mirror image; "
            "the build needs anny's symmetric topology `anny`."
        )
    return index


def symmetric(points: Float[np.ndarray, "*n k 3"], index: Int[np.ndarray, "k"]) -> np.ndarray:
    """Average points with the mirror image of their partners."""
    return (points + points[..., index, :] * REFLECT.astype(points.dtype)) / 2


def mirror_posedirs(
    posedirs: Float[np.ndarray, "v 3 207"], index: Int[np.ndarray, "v"]
) -> Float[np.ndarray, "v 3 207"]:
    """Return the correctives of the mirrored body: what each gives for the mirrored pose.

    A mirrored pose swaps left and right joints, and turns R into S R S with S = diag(-1, 1, 1).
    """
    of_joint = posedirs[index].reshape(len(index), 3, len(SMPL_NAMES) - 1, 3, 3)
    swapped = of_joint[:, :, [joint - 1 for joint in MIRRORED_JOINTS[1:]]]
    signs = REFLECT[:, None, None, None] * REFLECT[:, None] * REFLECT
    return (swapped * signs).reshape(posedirs.shape)
