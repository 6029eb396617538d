"""What a renderer of the data engine returns."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RenderedBatch:
    """What `Rendering` holds, of b scenes."""

    light: Float[Tensor, "b s s 3"]
    alpha: Float[Tensor, "b s s"]
    mask: Float[Tensor, "b s s"]
    depth: Float[Tensor, "b s s"]
    parts: Integer[Tensor, "b s s"]
    vertices: Float[Tensor, "b v 3"]


@dataclass(frozen=True, eq=False)
class Rendering:
    """What the camera sees; s = CROP_SIZE, or more with a margin."""

    light: Float[np.ndarray, "s s 3"]
    """Linear."""
    alpha: Float[np.ndarray, "s s"]
    """Share of each pixel that actors cover."""
    mask: Float[np.ndarray, "s s"]
    """Share of each pixel that shows the subject."""
    depth: Float[np.ndarray, "s s"]
    """Of the nearest point of the subject in a pixel, metres; infinite where it is not seen."""
    parts: UInt8[np.ndarray, "s s"]
    """1 + the SMPL joint that moves this point of the subject most; 0 where it is not seen."""
    vertices: Float[np.ndarray, "v 3"]
    """The subject's body, camera frame."""

    def as_batch(self) -> RenderedBatch:
        """Return it as a batch of one; the memory is shared."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return RenderedBatch(**{n: torch.from_numpy(array)[None] for n, array in arrays.items()})
