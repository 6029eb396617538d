"""The console command, without an installation: python -m smpler photo.jpg."""

import sys

from smpler.command import main

if __name__ == "__main__":
    sys.exit(main())
