"""Convert COCO keypoints to METRO's TSV layout.

    python -m scripts.convert_coco --json FILE --images DIR --out YAML

Reads `person_keypoints_*.json` or any file of that format (Lin et al., ECCV 2014). 2D only.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.conversion import (
    Dropped,
    Sample,
    box_of,
    by_name,
    convert,
    make_label,
    numbers,
    run,
)
from smpler.utils.files.text import one_line, read_json, shown
from smpler.utils.flags import Parser, input_file, input_folder, output_file, whole
from smpler.utils.joints import ANNOTATION_NAMES
from smpler.utils.paths import display

NOTE = "no 3D and no SMPL in this source: has_3d_joints and has_smpl are 0 everywhere"


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=input_file, required=True, help="keypoint annotations")
    parser.add_argument("--images", type=input_folder, required=True, help="folder of the photos")
    parser.add_argument("--out", type=output_file, required=True, help="the yaml to write")
    parser.add_argument("--min_keypoints", type=whole, default=6, help="drops people with fewer")
    return run(
        lambda a: convert(people(a.json, a.images, a.min_keypoints), a.out, [NOTE]), parser, argv
    )


def people(path: Path, images: Path, min_keypoints: int) -> Iterator[Sample | Dropped]:
    """Yield the annotated people in order of the file.

    Raises:
        ValueError: the file is no JSON of COCO's keypoint format.
    """
    content = read_json(path)
    try:
        category = _person_category(content)
        names = [annotation_name(n) for n in category["keypoints"]]
        files = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = content["annotations"]
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(
            f"{display(path)} is no file of COCO keypoints ({one_line(repr(error))}); such files "
            "are named person_keypoints_*.json."
        ) from error
    if len(files) != len(content["images"]) or not isinstance(annotations, list):
        raise ValueError(
            f"{display(path)} is no file of COCO keypoints: two of its images have one id, or "
            "'annotations' is no list."
        )
    if len(set(names)) != len(names) or not set(names) & set(ANNOTATION_NAMES):
        raise ValueError(f"{display(path)} names its keypoints {shown(names)}, not as COCO does.")
    for number, annotation in enumerate(annotations):
        try:
            yield _person(annotation, names, files, images, category.get("id"), min_keypoints)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            yield Dropped("people whose annotation is damaged", f"annotation {number}: {reason}")


def _person(
    annotation: dict,
    names: list[str],
    files: dict,
    images: Path,
    category: object,
    min_keypoints: int,
) -> Sample | Dropped:
    key = files.get(annotation["image_id"], f"image {annotation['image_id']}")
    keypoints = numbers(annotation.get("keypoints", []), "keypoints")
    if annotation.get("iscrowd"):
        return Dropped("crowds", key)
    if category is not None and annotation.get("category_id", category) != category:
        return Dropped("annotations of other categories", key)
    if len(keypoints) != 3 * len(names):
        return Dropped(f"people without the {len(names)} keypoints", key)
    keypoints = keypoints.reshape(-1, 3)
    if (keypoints[:, 2] > 0).sum() < min_keypoints:
        return Dropped(f"people with fewer than {min_keypoints} keypoints", key)
    keypoints[:, 2] = keypoints[:, 2] > 0  # 1: labelled but hidden, 2: seen
    known = {n: k for n, k in zip(names, keypoints, strict=True) if n in ANNOTATION_NAMES}
    return Sample(key, images / key, make_label(box_of(annotation["bbox"]), by_name(known, 3)))


def annotation_name(name: str) -> str:
    """Return our name of a COCO keypoint: left_ankle is L_Ankle."""
    words = name.replace("left", "l").replace("right", "r").split("_")
    return "_".join(word.capitalize() for word in words)


def _person_category(content: dict) -> dict:
    return next(c for c in content["categories"] if c.get("keypoints"))


if __name__ == "__main__":
    sys.exit(main())
