"""Combine data sets into one: python -m scripts.combine_datasets --out YAML SOURCE.yaml [...].

Writes a composite yaml over the sources' tables, which stay where they are: nothing is copied. The
published mixed training set, `datasets/Tax-H36m-coco40k-Muco-UP-Mpii/train.yaml`, is of this kind.
"""

import sys

from smpler.datasets.tsv import write_composite
from smpler.utils.flags import Parser, input_file, output_file, program
from smpler.utils.paths import display


@program
def main(argv: list[str] | None = None) -> int:
    """Combine and count; return 2 when a source cannot be used."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=input_file, help="yaml files of data sets")
    parser.add_argument("--out", type=output_file, required=True, help="the yaml to write")
    arguments = parser.parse_args(argv)
    counts = write_composite(arguments.out, arguments.sources)
    for source, count in zip(arguments.sources, counts, strict=True):
        print(f"{display(source)}: {count} samples")
    print(f"{display(arguments.out)}: {sum(counts)} samples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
