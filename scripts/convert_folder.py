"""Convert your own photos and labels to METRO's TSV layout.

    python -m scripts.convert_folder --images DIR --json FILE --out YAML

FILE is a list with one entry for each person. Everything but `image` is optional, but a box or 2D
keypoints must say where the person is:

    [{"image": "a.jpg",                            path below DIR
      "box": [x, y, width, height],                px, the person without margin
      "keypoints_2d": {"R_Ankle": [x, y, confidence], ...},        px; confidence 1 if left out
      "keypoints_3d": {"R_Ankle": [x, y, z, confidence], ...},     metres, camera frame
      "pose": [72 numbers], "betas": [10 numbers],                 SMPL; pose in the camera frame
      "gender": "m"}]                                              m, f or n

Camera frame: x right, y down, z away; someone upright who faces the camera has a global rotation of
about (pi, 0, 0). Names: `smpler.utils.joints.ANNOTATION_NAMES`. 3D keypoints may have any origin;
if Pelvis is not among them, the middle of L_Hip and R_Hip replaces it. Pose and betas belong
together.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.conversion import (
    Dropped,
    Sample,
    box_of,
    box_round,
    by_name,
    convert,
    make_label,
    numbers,
    run,
)
from smpler.utils.files.text import one_line, read_json, shown
from smpler.utils.flags import Parser, input_file, input_folder, output_file
from smpler.utils.joints import ANNOTATION_NAMES
from smpler.utils.paths import display

PELVIS, *HIPS = (ANNOTATION_NAMES.index(name) for name in ("Pelvis", "L_Hip", "R_Hip"))


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=input_folder, required=True, help="folder of the photos")
    parser.add_argument("--json", type=input_file, required=True, help="people, as described above")
    parser.add_argument("--out", type=output_file, required=True, help="the yaml to write")
    return run(lambda a: convert(people(a.json, a.images), a.out), parser, argv)


def people(path: Path, images: Path) -> Iterator[Sample | Dropped]:
    """Yield the people in order of the file.

    Raises:
        ValueError: the file is no list of people, or an entry is not as documented above.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{display(path)} is no list of people; see --help.")
    for number, entry in enumerate(entries):
        try:
            yield _person(entry, images)
        except ValueError as error:
            raise ValueError(f"{display(path)}, entry {number}: {error}") from error


def _person(entry: object, images: Path) -> Sample | Dropped:
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(entry)} is no person; see --help.")
    key = entry.get("image")
    if not isinstance(key, str) or not key:
        raise ValueError("'image' is missing, the path of the photo.")
    joints_2d = _joints(entry.get("keypoints_2d"), "keypoints_2d", 3)
    joints_3d = _joints(entry.get("keypoints_3d"), "keypoints_3d", 4)
    if joints_3d is not None and joints_3d[PELVIS, 3] == 0:
        if not (joints_3d[HIPS, 3] > 0).all():
            raise ValueError("keypoints_3d holds neither Pelvis nor L_Hip and R_Hip.")
        joints_3d[PELVIS, :3] = joints_3d[HIPS, :3].mean(axis=0)
    if entry.get("box"):
        box = box_of(entry["box"])
    elif joints_2d is not None and (joints_2d[:, 2] > 0).sum() > 1:
        box = box_round(joints_2d[joints_2d[:, 2] > 0, :2])
    else:
        return Dropped("people with neither box nor 2D keypoints", key)
    pose, betas = (
        None if entry.get(name) is None else numbers(entry[name], name)
        for name in ("pose", "betas")
    )
    if (pose is None) != (betas is None):
        raise ValueError("one of pose and betas is missing; SMPL needs both.")
    label = make_label(box, joints_2d, joints_3d, pose, betas, entry.get("gender"))
    return Sample(key, images / key, label)


def _joints(points: object, where: str, columns: int) -> np.ndarray | None:
    if not points:
        return None
    if not isinstance(points, dict):
        raise ValueError(f"{where} is {shown(points)}, not a dict of joints.")
    complete = {}
    for name, value in points.items():
        point = numbers(value, one_line(name))
        if len(point) == columns - 1:
            point = np.append(point, 1)
        if len(point) != columns:
            raise ValueError(
                f"{one_line(name)} has {len(point)} numbers, not {columns - 1} or {columns}."
            )
        complete[name] = point
    return by_name(complete, columns)


if __name__ == "__main__":
    sys.exit(main())
