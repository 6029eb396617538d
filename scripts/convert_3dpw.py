"""Convert 3DPW's original download to METRO's TSV layout.

    python -m scripts.convert_3dpw --root 3DPW --split test --out datasets/3dpw/test_has_gender.yaml

Reads `sequenceFiles/SPLIT/*.pkl` and `imageFiles/` (von Marcard et al., ECCV 2018) without running
anything of the pickles. Frames whose camera was not aligned to the image are dropped, as SPIN and
METRO do. 3DPW's poses are in the world's frame: global rotations are turned into the camera's.

With SMPL (`--body`, or `--body_male` and `--body_female`) and a 17-joint regressor (`--regressor`)
the 2D and 3D joints are those of the posed body. Without them, the 2D joints are 3DPW's own
detections and there are no 3D joints: such a test set measures MPVE only.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from scripts.conversion import Dropped, Sample, box_round, by_name, convert, make_label, run
from smpler.models.body import load_body, load_h36m_regressor
from smpler.models.smpl import SMPL
from smpler.utils.joints import ANNOTATION_NAMES, H36M_NAMES
from smpler.utils.paths import display
from smpler.utils.safe_pickle import read_array_pickle, to_array

OPENPOSE_NAMES = (
    "Nose", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip",
    "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "R_Eye", "L_Eye", "R_Ear", "L_Ear",
)  # fmt: skip
"""The 18 joints of `poses2d` (OpenPose's COCO order)."""
DETECTED = tuple(name for name in OPENPOSE_NAMES if name != "Neck")
"""Those that the annotation has too; OpenPose's neck, the middle of the shoulders, is another."""
REGRESSED = tuple(name for name in H36M_NAMES if name in ANNOTATION_NAMES)
FIELDS = ("sequence", "poses", "trans", "betas", "genders", "poses2d", "cam_poses",
          "campose_valid", "cam_intrinsics")  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="has sequenceFiles/, imageFiles/")
    parser.add_argument("--split", choices=["train", "validation", "test"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="the yaml to write")
    parser.add_argument("--body", type=Path, help="neutral SMPL, for both genders")
    parser.add_argument("--body_male", type=Path, help="SMPL that 3DPW's men were fitted with")
    parser.add_argument("--body_female", type=Path, help="SMPL that 3DPW's women were fitted with")
    parser.add_argument("--regressor", type=Path, help="17-joint regressor, J_regressor_h36m*.npy")
    return run(_convert, parser, argv)


def _convert(arguments: argparse.Namespace) -> int:
    bodies = load_bodies(arguments)
    folder = arguments.root / "sequenceFiles" / arguments.split
    paths = sorted(folder.glob("*.pkl"))
    if not paths:
        raise FileNotFoundError(
            f"{display(folder)} holds no .pkl; unpack sequenceFiles.zip and imageFiles.zip of "
            "https://virtualhumans.mpi-inf.mpg.de/3DPW/ side by side and give their folder."
        )
    notes = ["gender is written; SMPL parameters are of the gendered bodies"]
    if not bodies:
        notes.append("no body or regressor was given: has_3d_joints is 0, 2D joints are detections")
    samples = (s for path in paths for s in people(path, arguments.root / "imageFiles", bodies))
    return convert(samples, arguments.out, notes)


def load_bodies(arguments: argparse.Namespace) -> dict[str, SMPL]:
    """Return the body of each gender, in float64; none when none was given.

    Raises:
        ValueError: a body without a regressor, or the body of one gender alone.
    """
    paths = {
        "m": arguments.body_male or arguments.body,
        "f": arguments.body_female or arguments.body,
    }
    if not any(paths.values()) and not arguments.regressor:
        return {}
    if not all(paths.values()) or not arguments.regressor:
        raise ValueError(
            "3D joints need a body for both genders (--body, or --body_male and --body_female) and "
            "--regressor."
        )
    regressor = load_h36m_regressor(arguments.regressor)
    return {
        gender: SMPL(load_body(path).with_h36m_regressor(regressor)).double()
        for gender, path in paths.items()
    }


def people(path: Path, images: Path, bodies: dict[str, SMPL]) -> Iterator[Sample | Dropped]:
    """Yield every person of a sequence in every frame.

    Raises:
        ValueError: the file is no sequence of 3DPW.
    """
    sequence = read_array_pickle(path, FIELDS)
    missing = [name for name in FIELDS if name not in sequence]
    if missing:
        raise ValueError(f"{display(path)} has no {missing[0]!r}; is it a sequence of 3DPW?")
    extrinsics = to_array(sequence["cam_poses"]).astype(np.float64)  # (n, 4, 4), world to camera
    for number, gender in enumerate(sequence["genders"]):
        poses, trans, detected, valid = (
            to_array(sequence[name][number])
            for name in ("poses", "trans", "poses2d", "campose_valid")
        )
        betas = to_array(sequence["betas"][number]).ravel()[:10].astype(np.float64)
        for frame in range(len(extrinsics)):
            key = f"imageFiles/{sequence['sequence']}/image_{frame:05d}.jpg"
            if not valid[frame]:
                yield Dropped("people whose camera was not aligned", key)
                continue
            pose = to_camera(poses[frame].astype(np.float64), extrinsics[frame, :3, :3])
            joints_2d, joints_3d = detections(detected[frame]), None
            if bodies:
                world = (poses[frame], trans[frame], betas)
                joints_3d = regressed(bodies[gender], *world, extrinsics[frame])
                joints_2d = project(joints_3d, to_array(sequence["cam_intrinsics"]))
            found = joints_2d[:, 2] > 0
            if found.sum() < 2:
                yield Dropped("people without 2D joints", key)
                continue
            box = box_round(joints_2d[found, :2])
            label = make_label(box, joints_2d, joints_3d, pose, betas, gender)
            yield Sample(key, images / str(sequence["sequence"]) / Path(key).name, label)


def to_camera(
    pose: Float[np.ndarray, "72"], rotation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "72"]:
    """Turn a pose's global rotation from the world into the camera's frame."""
    turned = Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[:3])
    return np.concatenate([turned.as_rotvec(), pose[3:]])


def detections(detected: Float[np.ndarray, "3 18"]) -> Float[np.ndarray, "24 3"]:
    """Return OpenPose's joints in the annotation's order; px, confidence 1 or 0."""
    points = {n: detected[:, OPENPOSE_NAMES.index(n)].astype(np.float64) for n in DETECTED}
    return by_name({n: np.append(p[:2], p[2] > 0) for n, p in points.items()}, 3)


def regressed(
    smpl: SMPL,
    pose: Float[np.ndarray, "72"],
    trans: Float[np.ndarray, "3"],
    betas: Float[np.ndarray, "10"],
    extrinsics: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "24 4"]:
    """Return the regressed joints in the camera's frame, metres from the camera; confidence."""
    with torch.no_grad():
        numbers = (torch.from_numpy(x[None].astype(np.float64)) for x in (pose, betas))
        h36m = (smpl.h36m_regressor @ smpl(*numbers).vertices[0]).numpy() + trans
    joints = h36m @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    return by_name({n: np.append(joints[H36M_NAMES.index(n)], 1) for n in REGRESSED}, 4)


def project(
    joints: Float[np.ndarray, "24 4"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "24 3"]:
    """Project joints by the pinhole; those behind the camera get confidence 0."""
    image = joints[:, :3] @ intrinsics.T
    visible = (joints[:, 3] > 0) & (image[:, 2] > 0)
    depth = np.where(visible, image[:, 2], 1)[:, None]
    return np.where(visible[:, None], np.column_stack([image[:, :2] / depth, visible]), 0)


if __name__ == "__main__":
    sys.exit(main())
