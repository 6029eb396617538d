"""Regressors: SMPL's 24 joints and the annotated keypoints as weighted means of vertices."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from scripts.build.open_body.symmetry import MIRRORED_JOINTS
from smpler.utils.joints import ANNOTATION_NAMES, H36M_NAMES, SMPL_NAMES

NUM_CANDIDATES = 220
LIMB_REACH, TRUNK_REACH = 0.09, 0.20
"""Candidates lie at most this far [m] beyond the vertex nearest to the joint."""
TRUNK = ("Pelvis", "Spine1", "Spine2", "Spine3", "Neck", "Head", "L_Collar", "R_Collar")

H36M_ALIASES = {"Torso": "Spine", "Nose": "Jaw"}
"""Human3.6M's joints under METRO's names; its `Nose` is the joint between neck and head."""


def fit_joint_regressor(
    template: Float[np.ndarray, "v 3"],
    joints: Float[np.ndarray, "24 3"],
    posed: tuple[Float[np.ndarray, "n v 3"], Float[np.ndarray, "n 24 3"]],
    mirror: np.ndarray,
) -> Float[np.ndarray, "24 v"]:
    """Fit non-negative weights, summing to 1, that give the joints of posed bodies.

    Args:
        template: vertices at rest.
        joints: those of the template.
        posed: vertices of random people in random poses, and their joints by the kinematic tree.
        mirror: index of each vertex's mirror image; the right side mirrors the left.
    """
    regressor = np.zeros((len(SMPL_NAMES), len(template)))
    for joint, name in enumerate(SMPL_NAMES):
        if name.startswith("R_"):
            continue
        reach = TRUNK_REACH if name in TRUNK else LIMB_REACH
        candidates = spread_candidates(template, joints[joint], reach)
        if not name.startswith("L_"):
            candidates = np.union1d(candidates, mirror[candidates])
        offsets = posed[0][:, candidates] - posed[1][:, joint, None]
        regressor[joint, candidates] = convex_weights(offsets)
    other = regressor[MIRRORED_JOINTS][:, mirror]
    middle = np.array(MIRRORED_JOINTS) == np.arange(len(SMPL_NAMES))
    return np.where(middle[:, None], (regressor + other) / 2, regressor + other)


def spread_candidates(template, joint: Float[np.ndarray, "3"], reach: float) -> np.ndarray:
    """Pick vertices around a joint, each as far as possible from those picked before."""
    distance = np.linalg.norm(template - joint, axis=1)
    pool = np.flatnonzero(distance < distance.min() + reach)
    picked = [pool[distance[pool].argmin()]]
    gap = np.full(len(pool), np.inf)
    while len(picked) < min(NUM_CANDIDATES, len(pool)):
        gap = np.minimum(gap, np.linalg.norm(template[pool] - template[picked[-1]], axis=1))
        picked.append(pool[gap.argmax()])
    return np.sort(picked)


def convex_weights(offsets: Float[np.ndarray, "n c 3"]) -> Float[np.ndarray, "c"]:
    """Return weights >= 0, summing to 1, whose mean of the offsets is nearest to zero."""
    flat = offsets.astype(np.float64).transpose(0, 2, 1).reshape(-1, offsets.shape[1])
    gram = flat.T @ flat / len(flat) + 30  # 30: the sum is 1 to a few parts in a million
    factor = np.linalg.cholesky(gram + 1e-12 * np.trace(gram) * np.eye(len(gram)))
    ones = np.full(len(gram), 30.0)
    weights, _ = nnls(factor.T, np.linalg.solve(factor, ones), maxiter=20000)
    return weights / weights.sum()


def annotation_regressor(
    template: Float[np.ndarray, "v 3"],
    joint_regressor: Float[np.ndarray, "24 v"],
    coco: dict[str, Float[np.ndarray, "v"]],
) -> Float[np.ndarray, "24 v"]:
    """Build METRO's 24 annotated joints from the body's joints, COCO's face and the skull.

    Heights follow the proportions of Human3.6M's skeleton: `Neck` just above the line of the
    shoulders (82 % of the height), `Spine` half way down to the hips, `Head` in the middle of the
    skull (95 %), `Jaw` between it and the neck.
    """
    joint = dict(zip(SMPL_NAMES, joint_regressor, strict=True))
    hips = (joint["L_Hip"] + joint["R_Hip"]) / 2
    shoulders = (joint["L_Shoulder"] + joint["R_Shoulder"]) / 2
    top = top_of_head(template)
    points = {
        **joint,
        "Pelvis": hips,
        "Spine": joint["Spine2"],
        "Thorax": 0.8 * shoulders + 0.2 * joint["Neck"],
        "Neck": 0.6 * shoulders + 0.4 * joint["Neck"],
        "Jaw": 0.55 * joint["Head"] + 0.45 * chin(template, coco["nose"]),
        "Head": (top + joint["Head"]) / 2,
        "Top_of_Head": top,
        "Nose": thinned(coco["nose"]),
        **{
            f"{side[0].upper()}_{part.title()}": thinned(coco[f"{side}_{part}"])
            for side in ("left", "right")
            for part in ("eye", "ear")
        },
    }
    return np.stack([points[name] for name in ANNOTATION_NAMES])


def h36m_regressor(annotation: Float[np.ndarray, "24 v"]) -> Float[np.ndarray, "17 v"]:
    """Pick Human3.6M's 17 joints, so that they mean the same points as the annotations."""
    names = [H36M_ALIASES.get(name, name) for name in H36M_NAMES]
    return annotation[[ANNOTATION_NAMES.index(name) for name in names]]


def top_of_head(template: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v"]:
    """Average the vertices within 8 mm of the highest."""
    highest = template[:, 1] > template[:, 1].max() - 0.008
    return highest / highest.sum()


def chin(template: Float[np.ndarray, "v 3"], nose: Float[np.ndarray, "v"]) -> np.ndarray:
    """Take the foremost vertex of the midline, 5 to 12 cm below the nose."""
    below = (nose @ template)[1] - template[:, 1]
    middle = (np.abs(template[:, 0]) < 1e-3) & (below > 0.05) & (below < 0.12)
    weights = np.zeros(len(template))
    weights[np.flatnonzero(middle)[template[middle, 2].argmax()]] = 1
    return weights


def thinned(weights: Float[np.ndarray, "v"]) -> Float[np.ndarray, "v"]:
    """Drop the weights below 2 % of the largest: thousands of them, which move the point 0.2 mm."""
    weights = np.where(weights > 0.02 * weights.max(), weights, 0)
    return weights / weights.sum()
