"""Render people of the open data engine to disk, as TSV tables that main.py trains on.

`python -m scripts.render_dataset --out DIR --num 20000` writes DIR/train.yaml and its tables;
`--split val` writes DIR/val.yaml, the fixed validation set. Afterwards
`python main.py --data_mode=open --open_data DIR` trains on them. The same seed gives the same
samples, whatever the number of processes. Tables are written in parts: an interrupted run continues
when it is repeated.

`--contact_sheet FILE.jpg` shows samples in one picture instead.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from scripts.conversion import run
from smpler.datasets.engine.photo import jpeg_bytes
from smpler.datasets.engine.poses.sampler import PoseSampler
from smpler.datasets.engine.stored import RenderedPhotos
from smpler.datasets.engine.stream import (
    POSE_VERSIONS,
    SPLITS,
    VALIDATION_SEED,
    VALIDATION_SIZE,
    SyntheticPeople,
)
from smpler.datasets.tsv import TsvWriter, write_composite
from smpler.models.body import Body, open_body
from smpler.utils.files.whole import write_bytes_whole
from smpler.utils.flags import Parser, input_path, output_folder, output_jpeg, positive, whole
from smpler.utils.paths import display

PART = 2000
"""Samples in one part, a set of tables."""
SHEET_SIZE, COLUMNS, TILE = 50, 10, 128
"""Of a contact sheet: samples, samples in a row, and the side of each, pixels."""
SHEET_QUALITY = 85

Item = TypeVar("Item")


def main(argv: list[str] | None = None) -> int:
    """Run; return 0, or 2 when a flag or file of the user was unusable."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=output_folder, help="folder of the yaml files and tables")
    add("--contact_sheet", type=output_jpeg, help="instead: a JPEG that shows the samples")
    add("--num", type=positive, help="how many samples; --split val: the fixed set's 2,000")
    add("--split", choices=SPLITS, default="train")
    add("--seed", type=whole, default=0, help="of the training samples")
    add(
        "--amass",
        type=input_path,
        help="AMASS npz file or folder: half of the poses come from there",
    )
    add("--num_workers", type=whole, default=2, help="rendering processes")
    return run(render, parser, argv)


def render(args: argparse.Namespace) -> int:
    """Write tables, or a contact sheet."""
    if (args.out is None) == (args.contact_sheet is None):
        raise ValueError("Give either --out DIR or --contact_sheet FILE.jpg.")
    validation = args.split == "val"
    default = SHEET_SIZE if args.contact_sheet else VALIDATION_SIZE if validation else None
    num = default if args.num is None else args.num
    if num is None or num < 1:
        raise ValueError(f"--num is {num}; give the number of samples, such as --num 20000.")
    seed = VALIDATION_SEED if validation else args.seed
    body = open_body()
    poses = PoseSampler(None if validation else args.amass, version=POSE_VERSIONS[args.split])
    stream = SyntheticPeople(body, poses=poses, split=args.split, seed=seed, augment=False)
    if args.contact_sheet:
        write_contact_sheet(args.contact_sheet, stream, num)
    else:
        write_tables(args, stream, body, num)
    return 0


def write_contact_sheet(path: Path, stream: SyntheticPeople, num: int) -> None:
    """Draw the first samples as training sees them, without its augmentation."""
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        raise ValueError(f"{path}: a contact sheet is a JPEG; name it FILE.jpg.")
    sheet = np.full((-(-num // COLUMNS) * TILE, min(num, COLUMNS) * TILE, 3), 255, np.uint8)
    for index in tqdm(range(num), desc="contact sheet"):
        image = stream.sample(index)["image"].permute(1, 2, 0).numpy()
        tile = cv2.resize(np.rint(255 * image), (TILE, TILE), interpolation=cv2.INTER_AREA)
        row, column = divmod(index, COLUMNS)
        sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_whole(path, jpeg_bytes(sheet, SHEET_QUALITY))
    print(f"{display(path)}: {num} samples, {path.stat().st_size // 1000} kB.")


def write_tables(args: argparse.Namespace, stream: SyntheticPeople, body: Body, num: int) -> None:
    """Write the parts that are missing, then the yaml over all of them."""
    parts = []
    for number in range(math.ceil(num / PART)):
        count = min(PART, num - number * PART)
        path = args.out / args.split / f"seed{stream.seed}_{number:04d}_{count}.yaml"
        parts.append(path)
        if not path.is_file():
            photos = RenderedPhotos(stream, body.annotation_regressor, number * PART, count)
            write_part(path, photos, args.num_workers)
    write_composite(args.out / f"{args.split}.yaml", parts)
    print(f"{display(args.out / args.split)}.yaml: {num} samples of seed {stream.seed}.")


def write_part(path: Path, photos: RenderedPhotos, num_workers: int) -> None:
    """Render in several processes, write in order."""
    loader = DataLoader(photos, batch_size=None, num_workers=num_workers, collate_fn=as_it_is)
    with TsvWriter(path) as writer:
        for photo in tqdm(loader, desc=path.stem, unit="photo"):
            writer.add(photo.key, photo.image, photo.size, photo.label)


def as_it_is(sample: Item) -> Item:
    """Return a loader's sample without making tensors of it."""
    return sample


if __name__ == "__main__":
    sys.exit(main())
