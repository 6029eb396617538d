"""Files as bad disks, cut downloads and curious people leave them."""

from collections.abc import Iterator

import numpy as np


def damaged(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield variants of a file: flipped bits, other bytes, cut off, doubled, random throughout."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        changed = bytearray(content)
        place = int(rng.integers(len(changed)))
        if number % 5 == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif number % 5 == 1:
            for index in rng.integers(len(changed), size=int(rng.integers(1, 9))):
                changed[index] = int(rng.integers(256))
        elif number % 5 == 2:
            del changed[place:]
        elif number % 5 == 3:
            changed[place:place] = changed[place // 2 : place]
        else:
            changed = rng.bytes(int(rng.integers(1, 200)))
        yield bytes(changed)
