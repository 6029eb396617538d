"""Combine data sets into one: python -m scripts.combine_datasets --out YAML SOURCE.yaml [...].

Writes a composite yaml over the sources' tables, which stay where they are: nothing is copied. The
published mixed training set, `datasets/Tax-H36m-coco40k-Muco-UP-Mpii/train.yaml`, is of this kind.
"""

import argparse
import sys
from pathlib import Path

from smpler.datasets.tsv import TsvDataset, write_composite
from smpler.utils.paths import display


def main(argv: list[str] | None = None) -> int:
    """Combine and count; return 2 when a source cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path, help="yaml files, each of one data set")
    parser.add_argument("--out", type=Path, required=True, help="the yaml to write")
    arguments = parser.parse_args(argv)
    try:
        counts = [len(TsvDataset(source)) for source in arguments.sources]
        write_composite(arguments.out, arguments.sources)
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for source, count in zip(arguments.sources, counts, strict=True):
        print(f"{display(source)}: {count} samples")
    print(f"{display(arguments.out)}: {sum(counts)} samples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
