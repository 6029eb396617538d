"""What a renderer of the data engine gives, and the choice among the renderers."""

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from smpler.datasets.engine.people import People
from smpler.datasets.engine.scenes import Scene
from smpler.datasets.engine.wardrobe import Panorama

log = logging.getLogger(__name__)


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


class Renderer(Protocol):
    """Renders one scene at a time."""

    def render(self, scene: Scene, margin: int = 0) -> Rendering:
        """Return what the scene's camera sees, with so many pixels more on every side."""


def make_renderer(people: People, panoramas: Sequence[Panorama]) -> Renderer:
    """Return the compiled renderer, or torch's, twenty times slower, where numba is absent."""
    if importlib.util.find_spec("numba"):
        from smpler.datasets.engine.render.numba_renderer import NumbaRenderer

        return NumbaRenderer(people, panoramas)
    from smpler.datasets.engine.render.torch_renderer import TorchSceneRenderer

    log.warning("numba is not installed: torch renders, slowly. `pip install numba` helps.")
    return TorchSceneRenderer(people, panoramas)
