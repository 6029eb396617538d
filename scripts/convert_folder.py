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
if Pelvis is not among them, the middle of the hips replaces it.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.conversion import Dropped, Sample, box_round, by_name, convert, make_label, run
from smpler.utils.joints import ANNOTATION_NAMES
from smpler.utils.paths import display

PELVIS, *HIPS = (ANNOTATION_NAMES.index(name) for name in ("Pelvis", "L_Hip", "R_Hip"))


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--json", type=Path, required=True, help="people, as described above")
    parser.add_argument("--out", type=Path, required=True, help="the yaml to write")
    return run(lambda a: convert(people(a.json, a.images), a.out), parser, argv)


def people(path: Path, images: Path) -> Iterator[Sample | Dropped]:
    """Yield the people in order of the file.

    Raises:
        ValueError: the file is no list of people, or an entry is not as documented above.
    """
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{display(path)} is not JSON: {error}.") from error
    if not isinstance(entries, list):
        raise ValueError(f"{display(path)} is no list of people; see --help.")
    for number, entry in enumerate(entries):
        try:
            yield _person(entry, images)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{display(path)}, entry {number}: {reason}") from error


def _person(entry: dict, images: Path) -> Sample | Dropped:
    key = entry["image"]
    joints_2d = _joints(entry.get("keypoints_2d"), 3)
    joints_3d = _joints(entry.get("keypoints_3d"), 4)
    if joints_3d is not None and joints_3d[PELVIS, 3] == 0:
        joints_3d[PELVIS, :3] = joints_3d[HIPS, :3].mean(axis=0)
    if entry.get("box"):
        box = tuple(float(number) for number in entry["box"])
        if len(box) != 4 or not min(box[2:]) > 0:
            raise ValueError(f"box is {entry['box']}, not x, y, width, height.")
    elif joints_2d is not None and (joints_2d[:, 2] > 0).sum() > 1:
        box = box_round(joints_2d[joints_2d[:, 2] > 0, :2])
    else:
        return Dropped("people with neither box nor 2D keypoints", key)
    pose, betas = (None if entry.get(n) is None else np.array(entry[n]) for n in ("pose", "betas"))
    label = make_label(box, joints_2d, joints_3d, pose, betas, entry.get("gender"))
    return Sample(key, images / key, label)


def _joints(points: dict | None, columns: int) -> np.ndarray | None:
    if not points:
        return None
    complete = {}
    for name, point in points.items():
        point = [*point, 1.0] if len(point) == columns - 1 else point
        if len(point) != columns:
            raise ValueError(f"{name} has {len(point)} numbers, not {columns - 1} or {columns}.")
        complete[name] = np.array(point, np.float64)
    return by_name(complete, columns)


if __name__ == "__main__":
    sys.exit(main())
