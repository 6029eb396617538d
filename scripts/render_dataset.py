"""Render people of the open data engine to disk, as TSV tables that main.py trains on.

`python -m scripts.render_dataset --out DIR --num 20000` writes DIR/train.yaml and its tables;
`--split val` writes DIR/val.yaml, the fixed validation set. Then
`python main.py --data_mode=open --open_data DIR` trains from there. The same seed gives the same
samples, on however many processes. Tables are written in parts; a run that was cut off continues.
"""

import argparse
import math
import sys
from pathlib import Path

from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.poses import PoseSampler
from datasets.rendered import RenderedPhoto, RenderedPhotos
from datasets.synthetic import SPLITS, VALIDATION_SEED, VALIDATION_SIZE, SyntheticPeople
from datasets.tsv import TsvWriter, write_composite
from models.body import open_body
from scripts.conversion import run
from utils.paths import display

PART = 2000
"""Samples in one set of tables."""


def main(argv: list[str] | None = None) -> int:
    """Run; return 0, or 2 when something that the user gave was unusable."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the yaml files and tables")
    add("--num", type=int, help="how many samples; --split val: the fixed set's 2,000")
    add("--split", choices=SPLITS, default="train")
    add("--seed", type=int, default=0, help="of the training samples")
    add("--amass", type=Path, help="AMASS npz file or folder: half of the poses come from there")
    add("--num_workers", type=int, default=2, help="rendering processes")
    return run(render, parser, argv)


def render(args: argparse.Namespace) -> int:
    """Write the parts that are missing, then the yaml over all of them."""
    validation = args.split == "val"
    num = args.num or (VALIDATION_SIZE if validation else None)
    if num is None or num < 1:
        raise ValueError(f"--num is {num}: say how many samples, such as --num 20000.")
    seed = VALIDATION_SEED if validation else args.seed
    body = open_body()
    poses = PoseSampler(None if validation else args.amass)
    stream = SyntheticPeople(body, poses=poses, split=args.split, seed=seed, augment=False)
    parts = []
    for number in range(math.ceil(num / PART)):
        count = min(PART, num - number * PART)
        path = args.out / args.split / f"seed{seed}_{number:04d}_{count}.yaml"
        parts.append(path)
        if not path.is_file():
            photos = RenderedPhotos(stream, body.annotation_regressor, number * PART, count)
            write_part(path, photos, args.num_workers)
    write_composite(args.out / f"{args.split}.yaml", parts)
    print(f"{display(args.out / args.split)}.yaml: {num} samples of seed {seed}.")
    return 0


def write_part(path: Path, photos: RenderedPhotos, num_workers: int) -> None:
    """Render in several processes, write in order."""
    loader = DataLoader(photos, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)
    with TsvWriter(path) as writer:
        for photo in tqdm(loader, desc=path.stem, unit="photo"):
            writer.add(photo.key, photo.image, photo.size, photo.label)


def _as_it_is(photo: RenderedPhoto) -> RenderedPhoto:
    return photo


if __name__ == "__main__":
    sys.exit(main())
