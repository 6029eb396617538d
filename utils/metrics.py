"""Errors of an estimate: MPJPE, PA-MPJPE and MPVE, one number a sample, in metres."""

import torch
from jaxtyping import Float
from torch import Tensor

from smpler.utils.joints import KEYPOINT_NAMES

HIPS = KEYPOINT_NAMES.index("R_Hip"), KEYPOINT_NAMES.index("L_Hip")


def center_on_hips(keypoints: Float[Tensor, "b 14 3"]) -> Float[Tensor, "b 14 3"]:
    """Return the keypoints relative to the middle of the two hips."""
    right, left = HIPS  # read one by one: a list of indices would be copied to a GPU each time
    middle = (keypoints[:, right] + keypoints[:, left]) / 2
    return keypoints - middle[:, None]


def mpjpe(
    predicted: Float[Tensor, "b 14 3"], target: Float[Tensor, "b 14 3"]
) -> Float[Tensor, "b"]:
    """Mean per-joint position error, both sides centred on the middle of the hips."""
    return _mean_distance(center_on_hips(predicted), center_on_hips(target))


def pa_mpjpe(
    predicted: Float[Tensor, "b n 3"], target: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b"]:
    """MPJPE after the best rotation, translation and scale (Procrustes analysis)."""
    return _mean_distance(align_by_similarity(predicted, target), target)


def mpve(
    predicted: Float[Tensor, "b v 3"],
    predicted_pelvis: Float[Tensor, "b 3"],
    target: Float[Tensor, "b v 3"],
    target_pelvis: Float[Tensor, "b 3"],
) -> Float[Tensor, "b"]:
    """Mean per-vertex error, each side centred on its regressed pelvis."""
    return _mean_distance(predicted - predicted_pelvis[:, None], target - target_pelvis[:, None])


def align_by_similarity(
    source: Float[Tensor, "b n 3"], target: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b n 3"]:
    """Move each source by the similarity that brings it closest to its target.

    Least squares over rotations, never reflections (Umeyama, PAMI 1991). Points that all coincide
    are moved without being scaled. Where a number is not finite, so is the whole answer: NaN.
    """
    source_mean, target_mean = (x.mean(dim=1, keepdim=True) for x in (source, target))
    source, target = source - source_mean, target - target_mean
    covariance = target.mT @ source
    finite = covariance.isfinite().all(dim=(1, 2))[:, None, None]
    # a single number that is not finite would make torch refuse the whole batch
    u, singular, vh = torch.linalg.svd(torch.where(finite, covariance, 0.0))
    # the best orthogonal matrix may be a reflection; the best rotation then flips its weakest axis
    sign = torch.linalg.det(u @ vh).sign()
    signs = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    rotation = (u * signs[:, None]) @ vh
    spread = source.square().sum(dim=(1, 2))
    scale = (singular * signs).sum(dim=-1) / spread.clamp(min=torch.finfo(source.dtype).tiny)
    aligned = scale[:, None, None] * source @ rotation.mT + target_mean
    return torch.where(finite, aligned, float("nan"))


def _mean_distance(a: Float[Tensor, "b n 3"], b: Float[Tensor, "b n 3"]) -> Float[Tensor, "b"]:
    return torch.linalg.vector_norm(a - b, dim=-1).mean(dim=-1)
