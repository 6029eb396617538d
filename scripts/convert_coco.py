"""Convert COCO keypoints to METRO's TSV layout.

    python -m scripts.convert_coco --json FILE --images DIR --out YAML

Reads `person_keypoints_*.json` or any file of that format (Lin et al., ECCV 2014). 2D only.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.conversion import Dropped, Sample, by_name, convert, make_label, run
from smpler.utils.flags import whole
from smpler.utils.joints import ANNOTATION_NAMES
from smpler.utils.paths import display

NOTE = "no 3D and no SMPL in this source: has_3d_joints and has_smpl are 0 everywhere"


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="keypoint annotations")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--out", type=Path, required=True, help="the yaml to write")
    parser.add_argument("--min_keypoints", type=whole, default=6, help="drops people with fewer")
    return run(
        lambda a: convert(people(a.json, a.images, a.min_keypoints), a.out, [NOTE]), parser, argv
    )


def people(path: Path, images: Path, min_keypoints: int) -> Iterator[Sample | Dropped]:
    """Yield the annotated people in order of the file."""
    try:
        content = json.loads(path.read_text())
        names = [annotation_name(n) for n in _person_category(content)["keypoints"]]
        files = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = content["annotations"]
    except (json.JSONDecodeError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"{display(path)} is no file of COCO keypoints: {error!r}.") from error
    for annotation in annotations:
        key = files.get(annotation["image_id"], f"image {annotation['image_id']}")
        keypoints = np.array(annotation.get("keypoints", []), np.float64).reshape(-1, 3)
        if annotation.get("iscrowd"):
            yield Dropped("crowds", key)
        elif len(keypoints) != len(names):
            yield Dropped(f"people without the {len(names)} keypoints", key)
        elif (keypoints[:, 2] > 0).sum() < min_keypoints:
            yield Dropped(f"people with fewer than {min_keypoints} keypoints", key)
        else:
            keypoints[:, 2] = keypoints[:, 2] > 0  # 1: labelled but hidden, 2: seen
            known = {n: k for n, k in zip(names, keypoints, strict=True) if n in ANNOTATION_NAMES}
            label = make_label(tuple(annotation["bbox"]), by_name(known, 3))
            yield Sample(key, images / key, label)


def annotation_name(name: str) -> str:
    """Return our name of a COCO keypoint: left_ankle is L_Ankle."""
    words = name.replace("left", "l").replace("right", "r").split("_")
    return "_".join(word.capitalize() for word in words)


def _person_category(content: dict) -> dict:
    return next(c for c in content["categories"] if c.get("keypoints"))


if __name__ == "__main__":
    sys.exit(main())
