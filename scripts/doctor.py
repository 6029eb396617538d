"""Say what is present, what is missing, and what to do about it: python -m scripts.doctor.

The same as `smpler doctor`, which an installed package has.
"""

import sys

from smpler.doctor import main

if __name__ == "__main__":
    sys.exit(main())
