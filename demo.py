"""From photos to posed bodies: python demo.py photo.jpg; `--help` lists all flags."""

import sys

from smpler.command import demo

if __name__ == "__main__":
    sys.exit(demo())
