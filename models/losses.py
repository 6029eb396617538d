"""The training loss (SMPLer, Sec. 3.6): vertices, keypoints in 3D and 2D, rotations."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from smpler.models.smpl import SMPL, Estimate
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.metrics import center_on_hips


class SMPLLoss(nn.Module):
    """The weighted terms of one estimate against a batch of `smpler.datasets.human_mesh`.

    A term that no sample is annotated for is zero. An estimate without vertices has no such term.
    The paper has no loss on betas or camera; one on betas can be added.

    Args:
        smpl: the body that makes the target's vertices; the model's own.
        w_vert: weight of the vertices' L1, metres, each side relative to its regressed pelvis.
        w_3dj: weight of the 3D keypoints' error, both sides relative to the middle of the hips.
        w_2dj: weight of the 2D keypoints' error, crop coordinates.
        w_theta: weight of the rotation matrices' L1.
        w_betas: weight of the betas' mean squared error; with 0, the published loss, there is no
            such term. A network that is not sure of the pose otherwise shrinks and bends the body
            to be less wrong.
        joint_criterion: `mse` or `l1`, of the keypoints.
    """

    def __init__(
        self,
        smpl: SMPL,
        w_vert: float = 100.0,
        w_3dj: float = 1000.0,
        w_2dj: float = 100.0,
        w_theta: float = 50.0,
        w_betas: float = 0.0,
        joint_criterion: str = "mse",
    ):
        super().__init__()
        self.smpl = smpl
        self.weights = {
            "vertices": w_vert,
            "keypoints_3d": w_3dj,
            "keypoints_2d": w_2dj,
            "rotmat": w_theta,
            "betas": w_betas,
        }
        self.joint_error = {"mse": torch.square, "l1": torch.abs}[joint_criterion]

    @torch.no_grad()
    def with_target(self, batch: dict[str, Tensor], vertices: bool = True) -> dict[str, Tensor]:
        """Return the batch with the body that it asks for, to be compared with many estimates."""
        rotmat = axis_angle_to_rotmat(batch["pose"].unflatten(1, (24, 3)))
        batch = batch | {"target_rotmat": rotmat}
        if vertices:
            body = self.smpl(rotmat, batch["betas"])
            batch["target_vertices"] = body.vertices - body.pelvis[:, None]
        return batch

    def forward(self, estimate: Estimate, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted terms by name; their sum is what is minimised."""
        if "target_rotmat" not in batch:
            batch = self.with_target(batch, vertices=estimate.vertices is not None)
        # a body without a keypoint regressor cannot be trained on
        assert estimate.keypoints_3d is not None and estimate.keypoints_2d is not None
        has_smpl, has_3d = batch["has_smpl"], batch["has_keypoints_3d"]
        keypoints_3d, confidence_3d = batch["keypoints_3d"].split([3, 1], dim=-1)
        keypoints_2d, confidence_2d = batch["keypoints_2d"].split([2, 1], dim=-1)
        error_3d = self.joint_error(
            center_on_hips(estimate.keypoints_3d) - center_on_hips(keypoints_3d)
        )
        terms = {
            "keypoints_3d": _mean_over(confidence_3d * error_3d, has_3d),
            # where nothing is annotated, confidence alone says so
            "keypoints_2d": (
                confidence_2d * self.joint_error(estimate.keypoints_2d - keypoints_2d)
            ).mean(),
            "rotmat": _mean_over((estimate.rotmat - batch["target_rotmat"]).abs(), has_smpl),
        }
        if estimate.vertices is not None:
            assert estimate.pelvis is not None
            vertices = estimate.vertices - estimate.pelvis[:, None]
            terms["vertices"] = _mean_over((vertices - batch["target_vertices"]).abs(), has_smpl)
        if self.weights["betas"]:
            terms["betas"] = _mean_over((estimate.betas - batch["betas"]).square(), has_smpl)
        return {name: self.weights[name] * term for name, term in terms.items()}


def _mean_over(error: Float[Tensor, "b *n"], annotated: Bool[Tensor, "b"]) -> Float[Tensor, ""]:
    """Mean over annotated samples and all their entries, without asking how many there are."""
    per_sample = error.flatten(1).mean(dim=1)
    per_sample = torch.where(annotated, per_sample, 0)  # not a product: absent labels may be NaN
    return per_sample.sum() / annotated.sum().clamp(min=1)
