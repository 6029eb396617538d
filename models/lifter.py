"""From landmarks to a body: pose and shape, and how far off each may be.

A network that regresses bodies from pixels has to be trained on pixels, and rendered ones are not
like photos. Landmarks are the same in both, so that a network from landmarks to rotations can be
trained on motion capture and cameras drawn at random, without a picture (as Martinez et al., "A
simple yet effective baseline for 3d human pose estimation", ICCV 2017, from 2D joints to 3D ones).
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from smpler.models.detectors.landmarks import LANDMARK_NAMES
from smpler.models.fitting import Evidence, Prior, misfit, placed_on
from smpler.models.landmark_points import NUM_FEATURES, NUM_LANDMARKS, sight
from smpler.models.observation import SeenLandmarks
from smpler.models.placement import Pinhole, Placement, see
from smpler.models.smpl import SMPL
from smpler.models.weights.files import check_fits, read_arrays
from smpler.utils.geometry import (
    axis_angle_to_rotmat,
    nearest_rotation,
    rot6d_to_rotmat,
    rotation_angle,
)
from smpler.utils.initialisation import WithoutRandomInit
from smpler.utils.joints import NUM_BETAS, NUM_JOINTS, SMPL_NAMES, mirrored
from smpler.utils.paths import PRETRAINED, display, require

NETWORK_ROTATION, NETWORK_ROOT, NETWORK_BETAS = 0.3, 0.17, 1.0
"""How far off the answers of a network that sees pixels are taken to be, standard deviations:
rotations of joints and of the whole body, radians about each axis, and shape coefficients."""
UPRIGHT, STRAIGHT, MAY_BE_UPRIGHT, MAY_STAND = 0.1, 0.1, 0.25, 0.4
"""People are upright to the first, radians, and their knees straight to the second, unless they
seem to lean by more than the third, or a knee to be bent by more than the fourth; cameras are taken
to be level."""
ROTATION_FACTOR, DEPTH_FACTOR, SHAPE_FACTOR = 1.6, 0.3, 10.0
"""How far off the fit takes rotations, depths and shapes to be, by what the lifter and the network
say: limbs turn in the picture, and shapes follow proportions, rather than that depths change."""
FAR_APART, CONTRADICTED = 0.8, 5.0
"""The network's and the lifter's rotations of the whole body that differ by more than the first,
radians, are not averaged; the network's is taken, unless landmarks cost it more than the second
times what they cost the lifter's."""
LEAST_DEPTH = 0.01
"""A joint's depth is never known better than this, metres; the pelvis' is 0 by definition."""
SCATTERS = (1e-3, 10.0)
"""Least and largest standard deviation."""
HIPS, KNEES, ANKLES = (
    [SMPL_NAMES.index(f"{side}_{name}") for side in "LR"] for name in ("Hip", "Knee", "Ankle")
)
NECK = SMPL_NAMES.index("Neck")
_JOINT_ORDER = list(mirrored(SMPL_NAMES))


@dataclass(frozen=True)
class Lifted:
    """Bodies, and how far off they are expected to be: standard deviations."""

    rotmat: Float[Tensor, "b 24 3 3"]
    betas: Float[Tensor, "b 10"]
    rotation_scatter: Float[Tensor, "b 24"]
    """Of each joint's own rotation, radians about each axis."""
    joint_scatter: Float[Tensor, "b 24 2"]
    """Of each joint relative to the pelvis, metres along an axis: across the ray, and along it."""
    beta_scatter: Float[Tensor, "b 10"]

    def mirrored(self) -> "Lifted":
        """Return the mirror images."""
        reflect = self.rotmat.new_tensor([-1.0, 1.0, 1.0])
        rotmat = reflect[:, None] * self.rotmat[:, _JOINT_ORDER] * reflect
        of_rotations, of_joints = (
            x[:, _JOINT_ORDER] for x in (self.rotation_scatter, self.joint_scatter)
        )
        return Lifted(rotmat, self.betas, of_rotations, of_joints, self.beta_scatter)


class LiftingNetwork(nn.Module):
    """Residual perceptron from landmarks to pose, shape and their uncertainty.

    Args:
        width: of the hidden layers.
        num_blocks: of two layers each.
    """

    def __init__(self, width: int = 512, num_blocks: int = 3):
        super().__init__()
        self.widen = nn.Linear(NUM_FEATURES, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.pose = nn.Linear(width, NUM_JOINTS * 6 + NUM_BETAS)
        self.scatter = nn.Linear(width, NUM_JOINTS * 3 + NUM_BETAS)

    def forward(self, features: Float[Tensor, "b 135"]) -> Lifted:
        """Return the bodies in the frames of the rays: z along them, x right, y down."""
        hidden = self.widen(features)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden = self.norm(hidden)
        rot6d, betas = self.pose(hidden).split([NUM_JOINTS * 6, NUM_BETAS], dim=1)
        identity = rot6d.new_tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
        rotmat = rot6d_to_rotmat(rot6d.unflatten(1, (NUM_JOINTS, 6)) + identity)
        # what is learned of the scatters does not change the bodies
        scatter = self.scatter(hidden.detach()).exp().clamp(*SCATTERS)
        of_rotations, of_joints, of_betas = scatter.split(
            [NUM_JOINTS, NUM_JOINTS * 2, NUM_BETAS], dim=1
        )
        of_joints = of_joints.unflatten(1, (NUM_JOINTS, 2))
        return Lifted(rotmat, betas, of_rotations, of_joints, of_betas)


class Lifter(nn.Module):
    """The mean of some networks and of their answers to the mirror image.

    Args:
        num_networks: how many were trained, each from its own seed.
        width: see `LiftingNetwork`.
        num_blocks: see `LiftingNetwork`.
    """

    offsets: Float[Tensor, "33 3"]
    """Where the landmarks are on the body, see `landmark_points`."""
    body: Float[Tensor, "32"]
    """Bytes of the body's sha256."""

    def __init__(self, num_networks: int = 1, width: int = 512, num_blocks: int = 3):
        super().__init__()
        networks = (LiftingNetwork(width, num_blocks) for _ in range(num_networks))
        self.networks = nn.ModuleList(networks)
        self.register_buffer("offsets", torch.zeros(NUM_LANDMARKS, 3))
        self.register_buffer("body", torch.zeros(32))

    @property
    def body_sha256(self) -> str:
        """Identity of the body whose shape coefficients it knows."""
        return bytes(self.body.byte().tolist()).hex()

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> "Lifter":
        """Return a lifter with its weights.

        Args:
            path: npz written by `scripts.build_lifter`; None takes the shipped one.
            device: where it runs.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds other weights.
        """
        path = require(Path(path or PRETRAINED / "lifter.npz"))
        weights = read_arrays(path)
        biases = [name for name in weights if re.fullmatch(r"networks\.\d+\.widen\.bias", name)]
        width = max((weights[name].numel() for name in biases), default=1)
        num_blocks = sum(name.startswith("networks.0.blocks.") for name in weights) // 6
        sizes = len(biases), width, num_blocks
        with torch.device("meta"), WithoutRandomInit():  # takes no memory, however large
            check_fits(cls(*sizes), weights, display(path))
        with WithoutRandomInit():
            lifter = cls(*sizes)
        lifter.load_state_dict(weights)
        return lifter.to(device).eval()

    @torch.no_grad()
    def forward(
        self,
        slopes: Float[Tensor, "b 33 2"],
        visibility: Float[Tensor, "b 33"],
        known: Float[Tensor, "b 33"],
    ) -> Lifted:
        """Return bodies in the camera's frame: x right, y down, z away.

        Args:
            slopes: x / z and y / z of the landmarks, camera frame.
            visibility: of each, [0, 1].
            known: 1 or 0, see `Sight.known`.
        """
        seen, turn = sight(slopes, visibility, known)
        plain, other = seen.features(), seen.mirrored().features()
        answers = [network(plain) for network in self.networks]
        answers += [network(other).mirrored() for network in self.networks]
        mean = Lifted(
            **{
                field.name: torch.stack([getattr(x, field.name) for x in answers]).mean(dim=0)
                for field in fields(Lifted)
            }
        )
        rotmat = nearest_rotation(mean.rotmat)
        rotmat = torch.cat([(turn @ rotmat[:, 0])[:, None], rotmat[:, 1:]], dim=1)
        return Lifted(
            rotmat, mean.betas, mean.rotation_scatter, mean.joint_scatter, mean.beta_scatter
        )

    def lift(self, seen: SeenLandmarks, pinhole: Pinhole) -> Lifted:
        """Lift landmarks of a photo; those that a detector does not name are unknown."""
        columns = [seen.names.index(name) if name in seen.names else -1 for name in LANDMARK_NAMES]
        has = seen.places.new_tensor([number >= 0 for number in columns])
        slopes = pinhole.slopes(seen.places)[:, columns]
        return self(slopes, seen.visibility[:, columns], seen.is_own[:, columns] * has)


def combined(
    smpl: SMPL,
    people: Placement,
    lifted: Lifted,
    evidence: Evidence,
    whose: Bool[Tensor, "b"],
    keep_shape: bool,
) -> Prior:
    """Average a network's answer with the lifted bodies, each by what it is known to be off.

    Who is turned quite otherwise by the two is as one of them says, see `one_is_right`. Who may
    well stand is brought nearer to that, see `upright`.

    Args:
        smpl: the body.
        people: the network's answer.
        lifted: of the same people.
        evidence: of them.
        whose: the others stay as the network says.
        keep_shape: as the network says; the lifter knows another body.
    """
    estimate = people.estimate
    of_network = torch.full_like(lifted.rotation_scatter, NETWORK_ROTATION)
    of_network[:, 0] = NETWORK_ROOT
    known = whose[:, None] / lifted.rotation_scatter.square()
    seen = of_network.square().reciprocal()
    by_network, by_lifter = one_is_right(smpl, people, lifted, evidence)
    known = known.masked_fill(by_network[:, None], 0)
    seen = seen.masked_fill((by_lifter & whose)[:, None], 0)
    both = known[..., None, None] * lifted.rotmat + seen[..., None, None] * estimate.rotmat
    betas, beta_scatter = estimate.betas, torch.zeros_like(estimate.betas)
    if not keep_shape:
        precise = whose[:, None] / lifted.beta_scatter.square()
        share = precise / (precise + NETWORK_BETAS**-2)
        betas = torch.lerp(betas, lifted.betas, share)
        beta_scatter = (precise + NETWORK_BETAS**-2).rsqrt()
    precise = known + seen
    rotmat = upright(smpl, nearest_rotation(both), betas, precise, whose)
    start = see(smpl, rotmat, betas, people.translation, people.pinhole, "skeleton")
    depth = (DEPTH_FACTOR * lifted.joint_scatter[..., 1]).clamp(min=LEAST_DEPTH)
    across, along = lifted.joint_scatter.square().unbind(-1)
    joints = torch.where(whose[:, None], (2 * across + along).sqrt(), torch.nan)
    rotation = ROTATION_FACTOR * precise.rsqrt()
    return Prior(start, rotation, depth, SHAPE_FACTOR * beta_scatter, joints)


def one_is_right(
    smpl: SMPL, people: Placement, lifted: Lifted, evidence: Evidence
) -> tuple[Bool[Tensor, "b"], Bool[Tensor, "b"]]:
    """Say who is turned as the network says, and who as the lifter: the two are far apart.

    The mean of a front and a back, or of somebody who stands and somebody turned over, is neither.
    Landmarks are often explained by a front and by a back, and only the network saw which it is;
    it has hardly seen people turned over, whom landmarks tell.

    Args:
        smpl: the body.
        people: the network's answer.
        lifted: of the same people.
        evidence: of them.
    """
    estimate = people.estimate
    apart = rotation_angle(estimate.rotmat[:, 0], lifted.rotmat[:, 0]) > FAR_APART
    if not apart.any():
        return apart, apart
    places = people.translation, people.pinhole
    other = see(smpl, lifted.rotmat, estimate.betas, *places, "skeleton")
    of_network, of_lifter = (misfit(placed_on(x, evidence), evidence) for x in (people, other))
    contradicted = of_network > CONTRADICTED * of_lifter
    return apart & ~contradicted, apart & contradicted


def upright(
    smpl: SMPL,
    rotmat: Float[Tensor, "b 24 3 3"],
    betas: Float[Tensor, "b 10"],
    precise: Float[Tensor, "b 24"],
    whose: Bool[Tensor, "b"],
) -> Float[Tensor, "b 24 3 3"]:
    """Bring people who may well stand nearer to that: upright, and on straight legs.

    They are turned in depth only, since landmarks say how they lean sideways. All that the less so,
    the farther they lean or bend a knee.

    Args:
        smpl: the body.
        rotmat: of the joints, the first in the camera's frame.
        betas: the shape.
        precise: inverse of the squared scatter of each rotation.
        whose: the others stay as they are.
    """
    joints = smpl.skeleton(rotmat, betas)[0]
    line = joints[:, NECK] - joints[:, ANKLES].mean(dim=1)
    aside, away = (torch.atan2(line[:, axis], -line[:, 1]) for axis in (0, 2))
    straight = straight_knees(smpl)
    bend = rotation_angle(rotmat[:, KNEES], straight.expand(len(rotmat), 2, 3, 3)).amax(dim=1)
    squares = (aside.square() + away.square()) / MAY_BE_UPRIGHT**2 + (bend / MAY_STAND).square()
    likely = whose / (1 + squares).square()
    weight, of_knees = ((likely / scatter**2)[:, None] for scatter in (UPRIGHT, STRAIGHT))
    share = weight / (weight + precise[:, :1])
    turn = axis_angle_to_rotmat(F.pad(share * away[:, None], (0, 2)))
    rotmat = torch.cat([(turn @ rotmat[:, 0])[:, None], rotmat[:, 1:]], dim=1)
    return straightened(rotmat, straight, of_knees / (of_knees + precise[:, KNEES]))


def straight_knees(smpl: SMPL) -> Float[Tensor, "2 3 3"]:
    """Return the rotations of the knees, left and right, with which legs seen from aside are lines.

    At rest the open body's knees are bent by 5 degrees.
    """
    hips, knees, ankles = (smpl.joint_template[joints] for joints in (HIPS, KNEES, ANKLES))
    (_, y, z), (_, low_y, low_z) = (knees - hips).unbind(1), (ankles - knees).unbind(1)
    angle = torch.atan2(low_y * z - low_z * y, low_y * y + low_z * z)
    return axis_angle_to_rotmat(F.pad(angle[:, None], (0, 2)))


def straightened(
    rotmat: Float[Tensor, "b 24 3 3"],
    straight: Float[Tensor, "2 3 3"],
    share: Float[Tensor, "b 2"],
) -> Float[Tensor, "b 24 3 3"]:
    """Straighten knees, by thigh and shank alike: ankles hardly move, and feet do not turn.

    Args:
        rotmat: of the joints.
        straight: see `straight_knees`.
        share: of each knee's bend that is taken away.
    """
    share = share[..., None, None]
    hips, knees, ankles = (rotmat[:, joints] for joints in (HIPS, KNEES, ANKLES))
    less_bent = nearest_rotation((1 - share) * knees + share * straight)
    back = knees @ less_bent.mT
    half = nearest_rotation(torch.eye(3).to(back) + back)  # between no turn and that back
    rotmat = rotmat.clone()
    rotmat[:, HIPS] = hips @ half
    rotmat[:, KNEES] = less_bent
    rotmat[:, ANKLES] = knees.mT @ half @ knees @ ankles
    return rotmat
