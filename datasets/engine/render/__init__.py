"""Rendering of scenes, and the choice among the renderers."""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Protocol

from smpler.datasets.engine.people import People
from smpler.datasets.engine.render.result import Rendering
from smpler.datasets.engine.scenes import Scene
from smpler.datasets.engine.wardrobe import Panorama

log = logging.getLogger(__name__)


class Renderer(Protocol):
    """Renders one scene at a time."""

    def render(self, scene: Scene, margin: int = 0) -> Rendering:
        """Return what the scene's camera sees, with `margin` more pixels on every side."""


def make_renderer(people: People, panoramas: Sequence[Panorama]) -> Renderer:
    """Return the compiled renderer or, where numba is absent, torch's, twenty times slower."""
    if importlib.util.find_spec("numba"):
        from smpler.datasets.engine.render.numba_renderer import NumbaRenderer

        return NumbaRenderer(people, panoramas)
    from smpler.datasets.engine.render.torch_renderer import TorchSceneRenderer

    log.warning("numba is not installed: torch renders, slowly. `pip install numba` helps.")
    return TorchSceneRenderer(people, panoramas)
