"""From photos to posed bodies: python demo.py photo.jpg; `--help` lists all flags."""

import sys

from smpler.command import demo

if __name__ == "smpler.demo":
    raise ImportError("demo.py is a program beside the package smpler; import demo.")

if __name__ == "__main__":
    sys.exit(demo())
