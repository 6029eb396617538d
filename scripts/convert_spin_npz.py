"""Convert SPIN's npz files to METRO's TSV layout.

    python -m scripts.convert_spin_npz --npz FILE --images DIR --out YAML

SPIN (Kolotouros et al., ICCV 2019) distributes COCO, MPII, LSP-extended, MPI-INF-3DHP, Human3.6M
and 3DPW as one npz each: imgname, center, scale, part (n, 24, 3) px, S (n, 24, 4) metres in the
camera's frame, pose, shape, has_smpl, gender. Its 24 joints stand in the order of METRO's labels.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.conversion import Dropped, Sample, convert, make_label, run
from smpler.utils.files.arrays import read_npz
from smpler.utils.flags import Parser, input_file, input_folder, output_file
from smpler.utils.paths import display

SHAPES = {
    "imgname": (), "center": (2,), "scale": (), "part": (24, 3), "S": (24, 4), "pose": (72,),
    "shape": (10,), "has_smpl": (), "gender": (),
}  # fmt: skip
"""Array -> shape of each sample's entry."""
TEXTS = ("imgname", "gender")
NEEDED = ("imgname", "center", "scale")
"""Arrays that every file must have."""


def main(argv: list[str] | None = None) -> int:
    """Convert; return 0 when something was written."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--npz", type=input_file, required=True)
    parser.add_argument(
        "--images", type=input_folder, required=True, help="folder that imgname is relative to"
    )
    parser.add_argument("--out", type=output_file, required=True, help="the yaml to write")
    return run(_convert, parser, argv)


def _convert(arguments: argparse.Namespace) -> int:
    arrays = read(arguments.npz)
    absent = [name for name in ("part", "S", "pose", "shape") if name not in arrays]
    meaning = {
        "part": "has_2d_joints",
        "S": "has_3d_joints",
        "pose": "has_smpl",
        "shape": "has_smpl",
    }
    notes = [f"no {name!r} in this source: {meaning[name]} is 0 everywhere" for name in absent]
    return convert(people(arrays, arguments.images), arguments.out, notes)


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the known arrays of an npz.

    Raises:
        ValueError: it is no npz, lacks an array, or an array has another shape.
    """
    arrays = read_npz(path, SHAPES)
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise ValueError(
            f"{display(path)} has no {missing[0]!r}; SPIN's files hold {list(SHAPES)}."
        )
    num = arrays["imgname"].size
    for name, array in arrays.items():
        if name not in TEXTS and array.dtype.kind not in "biuf":
            raise ValueError(f"{display(path)}: {name!r} holds texts where numbers belong.")
        if name == "has_smpl" and not np.isin(array, (0, 1)).all():
            wrong = array[~np.isin(array, (0, 1))][0]
            raise ValueError(f"{display(path)}: 'has_smpl' holds {wrong:g}, not 0 or 1.")
        if name == "S" and array.shape == (num, 24, 3):  # without confidence: all are annotated
            arrays[name] = array = np.concatenate([array, np.ones((num, 24, 1))], axis=2)
        if array.shape != (num, *SHAPES[name]):
            raise ValueError(
                f"{display(path)}: {name!r} has shape {array.shape}, not {(num, *SHAPES[name])}."
            )
    return arrays


def people(arrays: dict[str, np.ndarray], images: Path) -> Iterator[Sample | Dropped]:
    """Yield the samples in order of the file."""
    for index, name in enumerate(arrays["imgname"]):
        entry = {key: array[index] for key, array in arrays.items()}
        key = text_of(name)
        has_smpl = bool(entry.get("has_smpl", 1)) and "pose" in entry and "shape" in entry
        center = entry["center"].tolist()
        yield Sample(
            key,
            images / key,
            make_label(
                (*center, 0.0, 0.0),
                entry.get("part"),
                entry.get("S"),
                entry["pose"] if has_smpl else None,
                entry["shape"] if has_smpl else None,
                gender(entry.get("gender")),
                scale=entry["scale"],
            ),
        )


def gender(value) -> str | None:
    """Return m or f, as SPIN spells them; None for anything else."""
    return text_of(value) if text_of(value) in ("m", "f") else None


def text_of(value: object) -> str:
    """Return a text of numpy's; bytes that are no UTF-8 are shown as numbers."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    sys.exit(main())
