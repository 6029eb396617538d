"""Joint names of every convention, and the index maps between them.

Every index table is derived from names, so that reading it is checking it.
"""

SMPL_NAMES = (
    "Pelvis", "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle",
    "Spine3", "L_Foot", "R_Foot", "Neck", "L_Collar", "R_Collar", "Head", "L_Shoulder",
    "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Hand", "R_Hand",
)  # fmt: skip
"""SMPL's own 24 joints in the order of its kinematic tree (Loper et al., SIGGRAPH Asia 2015)."""
NUM_JOINTS = len(SMPL_NAMES)
NUM_BETAS = 10
"""Shape coefficients that SMPL's published files and METRO's labels hold, and ours."""

_SMPL_PARENT_NAMES = {
    "L_Hip": "Pelvis", "R_Hip": "Pelvis", "Spine1": "Pelvis", "L_Knee": "L_Hip", "R_Knee": "R_Hip",
    "Spine2": "Spine1", "L_Ankle": "L_Knee", "R_Ankle": "R_Knee", "Spine3": "Spine2",
    "L_Foot": "L_Ankle", "R_Foot": "R_Ankle", "Neck": "Spine3", "L_Collar": "Spine3",
    "R_Collar": "Spine3", "Head": "Neck", "L_Shoulder": "L_Collar", "R_Shoulder": "R_Collar",
    "L_Elbow": "L_Shoulder", "R_Elbow": "R_Shoulder", "L_Wrist": "L_Elbow", "R_Wrist": "R_Elbow",
    "L_Hand": "L_Wrist", "R_Hand": "R_Wrist",
}  # fmt: skip

SMPL_PARENTS = tuple(
    SMPL_NAMES.index(_SMPL_PARENT_NAMES[name]) if name in _SMPL_PARENT_NAMES else -1
    for name in SMPL_NAMES
)
"""Index of each SMPL joint's parent; the root's is -1, and a parent always precedes its child."""

H36M_NAMES = (
    "Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Nose",
    "Head", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist",
)  # fmt: skip
"""The 17 Human3.6M joints, in the order of the published regressors' rows."""

KEYPOINT_NAMES = (
    "R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "R_Wrist", "R_Elbow", "R_Shoulder",
    "L_Shoulder", "L_Elbow", "L_Wrist", "Neck", "Head",
)  # fmt: skip
"""The 14 evaluated keypoints: LSP's order (Johnson & Everingham, BMVC 2010), Human3.6M's head."""

ANNOTATION_NAMES = (
    "R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "R_Wrist", "R_Elbow", "R_Shoulder",
    "L_Shoulder", "L_Elbow", "L_Wrist", "Neck", "Top_of_Head", "Pelvis", "Thorax", "Spine", "Jaw",
    "Head", "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear",
)  # fmt: skip
"""The 24 annotated joints of METRO's TSV labels (Lin et al., CVPR 2021)."""

H36M_PELVIS = H36M_NAMES.index("Pelvis")
ANNOTATION_PELVIS = ANNOTATION_NAMES.index("Pelvis")
KEYPOINTS_FROM_H36M = tuple(H36M_NAMES.index(name) for name in KEYPOINT_NAMES)
KEYPOINTS_FROM_ANNOTATION = tuple(ANNOTATION_NAMES.index(name) for name in KEYPOINT_NAMES)

KEYPOINT_BONES = tuple(
    (KEYPOINT_NAMES.index(a), KEYPOINT_NAMES.index(b))
    for a, b in (
        ("R_Ankle", "R_Knee"), ("R_Knee", "R_Hip"), ("R_Hip", "L_Hip"), ("L_Hip", "L_Knee"),
        ("L_Knee", "L_Ankle"), ("R_Wrist", "R_Elbow"), ("R_Elbow", "R_Shoulder"),
        ("R_Shoulder", "Neck"), ("Neck", "L_Shoulder"), ("L_Shoulder", "L_Elbow"),
        ("L_Elbow", "L_Wrist"), ("Neck", "Head"), ("R_Shoulder", "R_Hip"), ("L_Shoulder", "L_Hip"),
    )
)  # fmt: skip
"""Pairs of keypoint indices that a drawn skeleton connects."""


def mirrored(names: tuple[str, ...]) -> tuple[int, ...]:
    """Index of each joint's mirror image: left and right swap, the others stay."""
    swap = {"L_": "R_", "R_": "L_"}
    return tuple(names.index(swap.get(name[:2], name[:2]) + name[2:]) for name in names)
