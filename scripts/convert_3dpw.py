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
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from scripts.conversion import Dropped, Sample, box_round, by_name, convert, make_label, run
from smpler.models.body import load_body, load_h36m_regressor
from smpler.models.smpl import SMPL
from smpler.utils.files.text import shown
from smpler.utils.flags import Parser, input_file, input_folder, output_file
from smpler.utils.joints import ANNOTATION_NAMES, H36M_NAMES, NUM_BETAS
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

MAX_ANGLE, MAX_BETA = 100.0, 100.0
"""Of a pose's axis-angles, radians, and of shape coefficients: what exceeds them is no body's."""
MAX_DISTANCE = 1000.0
"""Metres from the origin of a sequence; numbers in millimetres are larger."""


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=input_folder, required=True, help="has sequenceFiles/, imageFiles/"
    )
    parser.add_argument("--split", choices=["train", "validation", "test"], required=True)
    parser.add_argument("--out", type=output_file, required=True, help="the yaml to write")
    parser.add_argument("--body", type=input_file, help="neutral SMPL, for both genders")
    parser.add_argument(
        "--body_male", type=input_file, help="SMPL that 3DPW's men were fitted with"
    )
    parser.add_argument(
        "--body_female", type=input_file, help="SMPL that 3DPW's women were fitted with"
    )
    parser.add_argument(
        "--regressor", type=input_file, help="17-joint regressor, J_regressor_h36m*.npy"
    )
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


@dataclass(frozen=True, eq=False)
class Sequence:
    """A sequence of 3DPW: its arrays have the right shapes, their numbers are not checked yet."""

    name: str
    cameras: Float[np.ndarray, "n 4 4"]
    """World to camera, metres."""
    intrinsics: Float[np.ndarray, "3 3"]
    people: list["Person"]


@dataclass(frozen=True, eq=False)
class Person:
    """One of its people, in all n frames."""

    gender: str
    poses: Float[np.ndarray, "n 72"]
    """Axis-angle, radians; the global rotation is the world's."""
    trans: Float[np.ndarray, "n 3"]
    """Metres, in the world."""
    betas: Float[np.ndarray, "10"]
    detected: Float[np.ndarray, "n 3 18"]
    """x, y in px, confidence."""
    is_aligned: Bool[np.ndarray, "n"]
    """Whether the camera was aligned to the image."""


def read_sequence(path: Path) -> Sequence:
    """Read a sequence's pickle.

    Raises:
        ValueError: the file is no sequence of 3DPW, or an array has another shape.
    """
    fields = read_array_pickle(path, FIELDS)
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise ValueError(f"{display(path)} has no {missing[0]!r}; is it a sequence of 3DPW?")
    name, genders = fields["sequence"], fields["genders"]
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,100}", name):
        raise ValueError(f"{display(path)} calls its sequence {shown(name)}, which is no name.")
    if not isinstance(genders, list) or not all(gender in ("m", "f") for gender in genders):
        raise ValueError(f"{display(path)} has the genders {shown(genders)}, not m or f for each.")
    for field in ("poses", "trans", "betas", "poses2d", "campose_valid"):
        count = len(fields[field]) if isinstance(fields[field], list | np.ndarray) else "no"
        if count != len(genders):
            raise ValueError(
                f"{display(path)} is no sequence of 3DPW: {field!r} holds {count} people, "
                f"'genders' {len(genders)}."
            )
    try:
        cameras = _array(fields, "cam_poses", ("n", 4, 4))
        intrinsics = _array(fields, "cam_intrinsics", (3, 3))
        if not np.allclose(intrinsics[2], (0, 0, 1)) or not intrinsics[[0, 1], [0, 1]].min() > 0:
            raise ValueError("'cam_intrinsics' is no pinhole camera")
        people = [_person(fields, number, len(cameras)) for number in range(len(genders))]
    except ValueError as error:
        raise ValueError(f"{display(path)} is no sequence of 3DPW: {error}.") from error
    return Sequence(name, cameras, intrinsics, people)


def _person(fields: dict, number: int, frames: int) -> Person:
    def array(name: str, *shape: int) -> np.ndarray:
        return _array(fields, name, shape, number)

    betas = array("betas")
    if betas.size < NUM_BETAS:
        raise ValueError(f"'betas' of person {number} has {betas.size} numbers")
    return Person(
        fields["genders"][number],
        array("poses", frames, 72),
        array("trans", frames, 3),
        betas.ravel()[:NUM_BETAS],
        array("poses2d", frames, 3, len(OPENPOSE_NAMES)),
        array("campose_valid", frames) == 1,
    )


def _array(
    fields: dict, name: str, shape: tuple[int | str, ...], number: int | None = None
) -> np.ndarray:
    """Return an array of a sequence, or one person's, as float64.

    Args:
        shape: that it must have, where a text stands for any length; () for any shape.

    Raises:
        ValueError: it is something else.
    """
    value, what = fields[name], repr(name)
    if number is not None:
        value, what = value[number], f"{name!r} of person {number}"
    try:
        array = np.asarray(to_array(value), np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{what} is no array of numbers") from error
    expected = tuple(array.shape[i] if isinstance(n, str) else n for i, n in enumerate(shape))
    if shape and (array.ndim != len(shape) or array.shape != expected):
        raise ValueError(f"{what} has shape {array.shape}, not {shape}")
    return array


def people(path: Path, images: Path, bodies: dict[str, SMPL]) -> Iterator[Sample | Dropped]:
    """Yield every person of a sequence in every frame.

    Raises:
        ValueError: the file is no sequence of 3DPW.
    """
    sequence = read_sequence(path)
    for person in sequence.people:
        for frame, camera in enumerate(sequence.cameras):
            key = f"imageFiles/{sequence.name}/image_{frame:05d}.jpg"
            pose, trans = person.poses[frame], person.trans[frame]
            if not person.is_aligned[frame]:
                yield Dropped("people whose camera was not aligned", key)
                continue
            if not is_rigid(camera):
                yield Dropped("people whose camera is no rotation and shift in metres", key)
                continue
            if not (is_plausible(pose, MAX_ANGLE) and is_plausible(trans, MAX_DISTANCE)
                    and is_plausible(person.betas, MAX_BETA)):  # fmt: skip
                yield Dropped("people whose SMPL parameters are no body's", key)
                continue
            joints_2d, joints_3d = detections(person.detected[frame]), None
            if bodies:
                joints_3d = regressed(bodies[person.gender], pose, trans, person.betas, camera)
                joints_2d = project(joints_3d, sequence.intrinsics)
            found = joints_2d[:, 2] > 0
            if found.sum() < 2:
                yield Dropped("people without 2D joints", key)
                continue
            box = box_round(joints_2d[found, :2])
            turned = to_camera(pose, camera[:3, :3])
            label = make_label(box, joints_2d, joints_3d, turned, person.betas, person.gender)
            yield Sample(key, images / sequence.name / Path(key).name, label)


def is_plausible(values: Float[np.ndarray, "*n"], limit: float) -> bool:
    """Say whether all numbers are finite and no larger than a limit."""
    return bool((np.abs(values) <= limit).all())


def is_rigid(camera: Float[np.ndarray, "4 4"]) -> bool:
    """Say whether a matrix rotates and shifts, by no more than people are away."""
    rotation = camera[:3, :3]
    if not is_plausible(rotation, 2) or not is_plausible(camera[:3, 3], MAX_DISTANCE):
        return False
    difference = np.abs(rotation @ rotation.T - np.eye(3)).max()
    return bool(difference < 1e-2 and np.linalg.det(rotation) > 0)


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
