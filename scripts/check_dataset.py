"""Check a data set in METRO's TSV layout: python -m scripts.check_dataset YAML [--sheet FILE.png].

Reads every row as evaluation would: counts what is annotated, names broken rows by file and row,
prints ranges, and draws the annotated keypoints over crops. Exit code 1 when a row is broken.
"""

import sys
from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from smpler.datasets.augment import Augmentation
from smpler.datasets.human_mesh import HumanMesh
from smpler.datasets.tsv_file import BadSampleError
from smpler.utils.drawing.visualize import contact_sheet, draw_skeleton
from smpler.utils.flags import Parser, input_file, output_png, positive, program, whole
from smpler.utils.image import CROP_SIZE, write_image
from smpler.utils.joints import KEYPOINT_NAMES
from smpler.utils.paths import display

MAX_NAMED = 20
"""Broken rows that are printed."""
FAR = 100
"""Half sides of the crop from its middle: keypoints that are farther are not drawn."""
HEAD = KEYPOINT_NAMES.index("Head")
ANKLES = [KEYPOINT_NAMES.index(name) for name in ("L_Ankle", "R_Ankle")]
GENDERS = ("no gender", "male", "female")


@program
def main(argv: list[str] | None = None) -> int:
    """Check, print, draw; return 1 when something is broken, 2 when nothing could be read."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("yaml", type=input_file, help="the data set")
    parser.add_argument("--sheet", type=output_png, help="PNG for the contact sheet")
    parser.add_argument("--num", type=positive, default=24, help="crops on the sheet")
    parser.add_argument("--num_workers", type=whole, default=0, help="processes that read")
    arguments = parser.parse_args(argv)
    try:
        data = HumanMesh(arguments.yaml, training=False)
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    loader = DataLoader(
        Rows(data), batch_size=None, num_workers=arguments.num_workers, collate_fn=None
    )
    rows = list(tqdm(loader, desc="rows", disable=None))
    bad = [row["error"] for row in rows if "error" in row]
    sources = len(data.samples.labels)
    print(f"{display(arguments.yaml)}: {len(data)} samples of {sources} source(s)")
    for line in report([row for row in rows if "error" not in row]):
        print(f"  {line}")
    print(f"  broken rows: {len(bad)}")
    for error in bad[:MAX_NAMED]:
        print(f"    {error}")
    if len(bad) > MAX_NAMED:
        print(f"    ... and {len(bad) - MAX_NAMED} more")
    if arguments.sheet:
        good = [index for index, row in enumerate(rows) if "error" not in row]
        chosen = np.unique(np.linspace(0, len(good) - 1, min(arguments.num, len(good))).astype(int))
        write_image(arguments.sheet, draw_sheet(data, [good[number] for number in chosen]))
        print(f"  sheet: {display(arguments.sheet)}, keypoints of {len(chosen)} samples")
    return 1 if bad else 0


class Rows(Dataset):
    """The facts that are reported of each sample, as plain numbers and texts."""

    def __init__(self, data: HumanMesh):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        samples = self.data.samples
        try:
            item = self.data.load(index, Augmentation())
            source, row = samples.locate(index)
            same_key = samples.labels[source].key(row) == item["key"]
        except BadSampleError as error:
            return {"error": str(error)}
        joints, confidence = item["keypoints_2d"].numpy()[:, :2], item["keypoints_2d"].numpy()[:, 2]
        annotated = confidence > 0
        keypoints_3d = item["keypoints_3d"].numpy()
        found = {
            "has": [name for name in HAS if item[HAS[name]]],
            "gender": GENDERS[item["gender"]],
            "same_key": same_key,
            "crop side [px]": 200 * float(item["scale"]),
            "shows something": float(item["image"].max()) > 0,
        }
        if item["has_keypoints_2d"] and annotated.any():
            found["keypoints inside the crop"] = float(
                (np.abs(joints[annotated]) <= 1).all(1).mean()
            )
        if item["has_keypoints_3d"]:
            found["height of head above ankles [m]"] = float(
                keypoints_3d[ANKLES, 1].mean() - keypoints_3d[HEAD, 1]
            )
            found["farthest keypoint from the pelvis [m]"] = float(
                np.linalg.norm(keypoints_3d[keypoints_3d[:, 3] > 0, :3], axis=1).max(initial=0)
            )
        if item["has_smpl"]:
            up = cv2.Rodrigues(item["pose"].double().numpy()[:3])[0] @ [0, 1, 0]
            found["tilt of the trunk from upright [degrees]"] = float(
                np.rad2deg(np.arccos(np.clip(-up[1], -1, 1)))
            )
            found["largest beta"] = float(item["betas"].abs().max())
        return found


HAS = {"2D": "has_keypoints_2d", "3D": "has_keypoints_3d", "SMPL": "has_smpl"}


def report(rows: list[dict]) -> Iterator[str]:
    """Yield lines on the good rows: counts, ranges, and what looks wrong."""
    has = Counter(name for row in rows for name in row["has"])
    yield "annotated: " + ", ".join(f"{name} {has[name]}" for name in HAS)
    genders = Counter(row["gender"] for row in rows)
    yield "gender: " + ", ".join(f"{genders[name]} {name}" for name in GENDERS)
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        values = np.array([row[name] for row in rows if name in row]) if name != "has" else []
        if len(values) and values.dtype.kind == "f":
            low, middle, high = np.percentile(values, [0, 50, 100])
            yield f"{name}: {low:.3g} to {high:.3g}, median {middle:.3g}"
    for name, advice in WARNINGS.items():
        wrong = [row for row in rows if SUSPICIONS[name](row)]
        if wrong:
            yield f"look: {len(wrong)} of {len(rows)} {advice}"


WARNINGS = {
    "keys": "have another key in the label table than in the image table; rows are shifted?",
    "outside": "have less than half of their keypoints inside the crop; center or scale wrong?",
    "black": "show nothing: the box misses the photo",
    "upside down": "have the head below the ankles or the trunk upside down; "
    "labels belong in the camera's frame (x right, y down, z away)",
    "size": "reach farther than 2 m from the pelvis; 3D labels are in metres",
}
SUSPICIONS = {
    "keys": lambda row: not row["same_key"],
    "outside": lambda row: row.get("keypoints inside the crop", 1) < 0.5,
    "black": lambda row: not row["shows something"],
    "upside down": lambda row: (
        row.get("height of head above ankles [m]", 0) < -0.5
        or row.get("tilt of the trunk from upright [degrees]", 0) > 120
    ),
    "size": lambda row: row.get("farthest keypoint from the pelvis [m]", 0) > 2,
}


def draw_sheet(data: HumanMesh, indices: list[int]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the annotated keypoints of some samples over their crops."""
    crops = []
    for index in indices:
        item = data.load(index, data.augmentation(index))
        image = np.rint(255 * item["image"].numpy()).astype(np.uint8).transpose(1, 2, 0)
        keypoints, confidence = np.split(item["keypoints_2d"].numpy(), [2], axis=1)
        near = np.abs(keypoints).max(axis=1) < FAR
        pixels = (np.where(near[:, None], keypoints, 0) + 1) / 2 * CROP_SIZE
        shown = np.where(near, confidence[:, 0], 0)
        crops.append(draw_skeleton(np.ascontiguousarray(image), pixels, shown))
    columns = max(1, min(8, len(crops)))
    return contact_sheet(
        crops or [np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)], columns, CROP_SIZE
    )


if __name__ == "__main__":
    sys.exit(main())
