"""The lifter's training: its losses, and a loop over endless pairs."""

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from scripts.build_lifter.pairs import PairMaker, Pairs
from smpler.models.lifter import Lifted, LiftingNetwork
from smpler.models.smpl import SMPL
from smpler.utils.geometry import rotation_angle

WARM_UP = 200
"""Steps in which the learning rate grows."""
MAX_GRADIENT = 5.0
WEIGHT_DECAY = 1e-2
MOMENTS = (0.9, 0.99)
AVERAGE = 0.998
"""Decay of the moving average of the weights, which is what is kept."""
JOINT_WEIGHT, SHAPE_WEIGHT, SCATTER_WEIGHT = 5.0, 0.1, 0.1
"""Of a metre, of squared shape coefficients, and of the scatters' likelihood, against that of
differences of rotation matrices."""
SOFT = 0.01
"""Joints nearer than this are as good as right, metres, and so are rotation matrices."""


@dataclass(frozen=True)
class Losses:
    """Means over a batch."""

    rotation: Float[Tensor, ""]
    joint: Float[Tensor, ""]
    """Distance of joints relative to the first, metres."""
    shape: Float[Tensor, ""]
    scatter: Float[Tensor, ""]
    """Negative log-likelihood of the errors."""

    def total(self) -> Float[Tensor, ""]:
        """Return what is minimised."""
        return (
            self.rotation
            + JOINT_WEIGHT * self.joint
            + SHAPE_WEIGHT * self.shape
            + SCATTER_WEIGHT * self.scatter
        )


def losses(smpl: SMPL, lifted: Lifted, pairs: Pairs) -> Losses:
    """Compare bodies with the true ones."""
    joints = smpl.skeleton(lifted.rotmat, lifted.betas)[0]
    away = (joints - joints[:, :1] - pairs.joints + pairs.joints[:, :1])[:, 1:]
    betas_away = lifted.betas - pairs.betas
    return Losses(
        soft_norm((lifted.rotmat - pairs.rotmat).flatten(2)).mean(),
        soft_norm(away).mean(),
        betas_away.square().mean(),
        negative_log_likelihood(lifted, pairs, away.detach(), betas_away.detach()),
    )


def soft_norm(difference: Float[Tensor, "*n c"]) -> Float[Tensor, "*n"]:
    """Return lengths, of which the mean is least at the median, not at the mean.

    A knee that is straight in most of the poses that look alike shall be straight.
    """
    return (difference.square().sum(dim=-1) + SOFT**2).sqrt()


def negative_log_likelihood(
    lifted: Lifted,
    pairs: Pairs,
    away: Float[Tensor, "b 23 3"],
    betas_away: Float[Tensor, "b 10"],
) -> Float[Tensor, ""]:
    """Return how unlikely the errors are by the scatters, which are of normal distributions.

    Only the scatters learn from it (as beta-NLL's limit, Seitzer et al., ICLR 2022): otherwise what
    is hard to say would be said worse.

    Args:
        lifted: the bodies.
        pairs: the true ones.
        away: error of the joints but the first, relative to it, metres.
        betas_away: error of the shape coefficients.
    """

    def of(squares: Tensor, scatter: Tensor, axes: int) -> Float[Tensor, ""]:
        return (squares / (2 * scatter.square()) + axes * scatter.log()).mean()

    angles = rotation_angle(lifted.rotmat.detach(), pairs.rotmat)
    across, along = lifted.joint_scatter[:, 1:].unbind(-1)
    return (
        of(angles.square(), lifted.rotation_scatter, 3)
        + of(away[..., :2].square().sum(dim=-1), across, 2)
        + of(away[..., 2].square(), along, 1)
        + of(betas_away.square(), lifted.beta_scatter, 1)
    )


@dataclass(frozen=True)
class Recipe:
    """What is trained, and for how long."""

    width: int
    num_blocks: int
    num_steps: int
    batch_size: int
    learning_rate: float
    bfloat16: bool
    """Multiply matrices in bfloat16; weights, losses and the optimiser stay in float32."""


def trained(recipe: Recipe, maker: PairMaker) -> dict[str, Tensor]:
    """Train a network on one core; return the moving average of its weights."""
    torch.set_num_threads(1)
    torch.manual_seed(maker.seed)
    network = LiftingNetwork(recipe.width, recipe.num_blocks)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        recipe.learning_rate,
        betas=MOMENTS,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    average = copy.deepcopy(network)
    progress = tqdm(range(1, recipe.num_steps + 1), desc=f"seed {maker.seed}", disable=None)
    for step in progress:
        warm = min(1, step / WARM_UP)
        cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warm * cosine
        pairs = maker.pairs(recipe.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            lifted = network(pairs.features)
        lifted = Lifted(**{name: x.float() for name, x in vars(lifted).items()})
        value = losses(maker.smpl, lifted, pairs)
        optimizer.zero_grad()
        value.total().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - min(AVERAGE, step / (step + 10)))
        if step % 100 == 0:
            progress.set_postfix(joint_mm=f"{1000 * value.joint.item():.0f}")
    return average.state_dict()


@torch.no_grad()
def errors(smpl: SMPL, lifted: Lifted, pairs: Pairs) -> dict[str, float]:
    """Return mean errors: joints relative to the first in all and in depth, rotations, honesty.

    `rank` is Spearman's correlation between the joints' expected and true errors.
    """
    joints = smpl.skeleton(lifted.rotmat, lifted.betas)[0]
    away = (joints - joints[:, :1] - pairs.joints + pairs.joints[:, :1])[:, 1:]
    across, along = lifted.joint_scatter[:, 1:].unbind(-1)
    expected = (2 * across.square() + along.square()).sqrt().flatten()
    angles = rotation_angle(lifted.rotmat, pairs.rotmat)
    return {
        "joints, mm": 1000 * away.norm(dim=-1).mean().item(),
        "depth of joints, mm": 1000 * away[..., 2].abs().mean().item(),
        "rotations, degrees": torch.rad2deg(angles).mean().item(),
        "rank": float(spearmanr(expected.numpy(), away.norm(dim=-1).flatten().numpy()).statistic),
    }
