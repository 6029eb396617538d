"""Accuracy of the open body, on people and poses that no fit has seen."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from scripts.build.open_body.correctives import pose_people, posed_vertices
from scripts.build.open_body.driven_rig import DrivenRig
from scripts.build.open_body.makehuman import People
from scripts.build.open_body.shape import LEADING_TRAITS, ShapeSpace
from smpler.models.body import Body
from smpler.models.smpl import SMPL
from smpler.utils.joints import NUM_BETAS, SMPL_NAMES


def print_people(people: People) -> None:
    """Print heights and body mass indices of the people drawn."""
    female = people.traits["gender"] > 0.5
    for name, chosen in (("men", ~female), ("women", female)):
        height, bmi = people.traits["height"][chosen], people.traits["bmi"][chosen]
        print(
            f"{chosen.sum()} {name}: height {height.mean():.3f} +- {height.std():.3f} m, "
            f"BMI {bmi.mean():.1f} +- {bmi.std():.1f}"
        )


def print_shape(
    body: Body, vertices: Float[np.ndarray, "n v 3"], traits: dict[str, np.ndarray]
) -> None:
    """Print how well ten betas describe people in T-pose, and what the first three mean."""
    space = ShapeSpace(body.v_template.astype(np.float64), body.shapedirs.astype(np.float64))
    betas = space.encode(vertices)
    error = 1e3 * np.linalg.norm(space.decode(betas) - vertices, axis=-1)
    print(f"10 betas: {summary(error)}, worst person's mean {error.mean(axis=1).max():.2f}")
    moved = 1e3 * np.sqrt((space.shapedirs**2).sum(axis=1).mean(axis=0))
    print("rms movement per beta [mm]:", *moved.round(1))
    for k, (trait, _) in enumerate(LEADING_TRAITS):
        correlation = np.corrcoef(betas[:, k], traits[trait])[0, 1]
        extremes = space.decode(np.outer((-2, 2), np.eye(NUM_BETAS)[k]))
        low, high = np.ptp(extremes[..., 1], axis=1)
        print(
            f"beta{k}: correlation with {trait} {correlation:+.2f}; "
            f"-2 and +2 are {low:.2f} and {high:.2f} m tall"
        )


def print_joints(
    name: str, body: Body, vertices: Float[np.ndarray, "n v 3"], joints: Float[np.ndarray, "n 24 3"]
) -> None:
    """Print how far the regressed joints of people in T-pose are from other ones.

    Args:
        name: of the other joints.
        body: has the regressor.
        vertices: of the people, metres.
        joints: the other ones, metres.
    """
    error = 1e3 * np.linalg.norm(body.J_regressor @ vertices - joints, axis=-1)
    print(f"J_regressor at rest, from the {name}: {summary(error)}")


def print_posed_joints(
    body: Body, pose: Float[np.ndarray, "n 24 3"], betas: Float[np.ndarray, "n 10"]
) -> None:
    """Print how far joints regressed from posed vertices are from the kinematic tree's."""
    vertices, joints = pose_people(SMPL(body).double(), pose, betas)
    error = 1e3 * np.linalg.norm(body.J_regressor @ vertices - joints, axis=-1)
    print(f"J_regressor posed: {summary(error)}")
    by_joint = zip(SMPL_NAMES, error.mean(axis=0), strict=True)
    print("  by joint [mm]:", *(f"{name} {value:.1f}" for name, value in by_joint))
    print("  non-zeros:", *(body.J_regressor > 0).sum(axis=1))


def print_correctives(body: Body, driven: DrivenRig, pose: Float[np.ndarray, "n 24 3"]) -> None:
    """Print how far skinning is from MakeHuman's rig, with and without the correctives."""
    target = driven.pose(pose)
    for name, posedirs in (("alone", 0 * body.posedirs), ("with posedirs", body.posedirs)):
        vertices = posed_vertices(SMPL(replace(body, posedirs=posedirs)).double(), pose)
        error = 1e3 * np.linalg.norm(vertices - target, axis=-1)
        print(f"skinning {name}: {summary(error)}, max {error.max():.1f}")
    print(f"posedirs: {100 * (body.posedirs != 0).mean():.1f} % non-zero")


def summary(error: Float[np.ndarray, "*n"]) -> str:
    """Return mean and 95th percentile of errors in millimetres."""
    return f"mean {error.mean():.2f} mm, p95 {np.percentile(error, 95):.2f}"
