"""Panoramas as backgrounds, and their light as one sun and soft light from everywhere else."""

import base64
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from smpler.datasets.engine.wardrobe import Panorama, spherical_harmonics

BRIGHT_PERCENTILE, BRIGHT_FACTOR = 97, 1.5
"""Radiance above this percentile times this factor is that of lamps and the sun."""
BACKGROUND_LIMIT = 2
"""Backgrounds are clipped at this many times that radiance."""
LAMP = 4
"""Lamps above this many times that radiance have dark rings round them: the package's pictures
were made smaller by a filter with negative lobes before they were clipped."""
RING = 9
"""Diameter of the rings, pixels."""
COSINE_LOBE = np.repeat([1, 2 / 3, 1 / 4], [1, 3, 5])
"""Matt white shows radiance convolved by max(0, cos) / pi, band by band (Ramamoorthi and Hanrahan,
"An Efficient Representation for Irradiance Environment Maps", SIGGRAPH 2001)."""


def read_exr(javascript: bytes) -> Float[np.ndarray, "h w 3"]:
    """Decode a picture of the package: linear RGB, with negative lobes."""
    import OpenEXR

    text = re.search(rb"base64,([A-Za-z0-9+/=]+)", javascript).group(1)
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(base64.b64decode(text))
        file.flush()
        with OpenEXR.File(str(Path(file.name))) as picture:
            return picture.channels()["RGB"].pixels.astype(np.float64)


def make_panorama(name: str, radiance: Float[np.ndarray, "h w 3"]) -> Panorama:
    """Divide the light of a panorama into background, sun and soft light."""
    directions, solid_angles = pixel_directions(*radiance.shape[:2])
    bright = np.percentile(radiance.mean(axis=-1), BRIGHT_PERCENTILE) * BRIGHT_FACTOR
    background, radiance = remove_rings(radiance, bright)
    soft = background.clip(max=bright)
    lamps = (radiance - soft) * solid_angles  # lobes of either sign cancel in the sums
    towards = np.einsum("hwc,hwk->k", lamps, directions) / 3
    sun_share = np.linalg.norm(towards) / lamps.sum(axis=(0, 1)).mean()
    rest = soft * solid_angles + (1 - sun_share) * lamps
    sun_color = (sun_share * lamps.sum(axis=(0, 1)) / np.pi).clip(0)
    harmonics = np.einsum("hwk,hwc->kc", spherical_harmonics(directions), rest)
    ambient = COSINE_LOBE[:, None] * harmonics
    # over all orientations, max(0, cos) averages 1/4, and the first harmonic is all that is left
    unit = (ambient[0] * spherical_harmonics(directions[0, 0])[0] + sun_color / 4).mean()
    return Panorama(
        name=name,
        image=(background / unit).astype(np.float32),
        sun_direction=(towards / np.linalg.norm(towards)).astype(np.float32),
        sun_color=(sun_color / unit).astype(np.float32),
        ambient=(ambient / unit).astype(np.float32),
    )


def pixel_directions(
    height: int, width: int
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 1"]]:
    """Return unit directions of the pixels' centres, as `Panorama.image` says, and solid angles."""
    polar = (np.arange(height)[:, None] + 0.5) / height * np.pi
    azimuth = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    up, out = np.cos(polar) + 0 * azimuth, np.sin(polar)
    directions = np.stack([out * np.sin(azimuth), up, out * np.cos(azimuth)], axis=-1)
    area = 2 * np.pi**2 / (height * width) * out + 0 * azimuth
    return directions, area[..., None]


def remove_rings(
    radiance: Float[np.ndarray, "h w 3"], bright: float
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
    """Return the clipped background without rings, and the radiance with its suns' colours.

    In two panoramas the sun is too bright for the red and green of the file's format, which are 0
    there; they are given the ratio that they have round the sun.
    """
    clipped = radiance.clip(0, BACKGROUND_LIMIT * bright)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (RING, RING))
    width = radiance.shape[1]
    around = np.concatenate([clipped] * 3, axis=1)  # left and right meet
    closed = cv2.morphologyEx(around, cv2.MORPH_CLOSE, disk)[:, width : 2 * width]
    peak = np.concatenate([radiance.max(axis=-1)] * 3, axis=1)
    near = cv2.dilate((peak > LAMP * bright).astype(np.uint8), disk)[:, width : 2 * width, None]
    background = np.where(near, closed, clipped)
    lost = (np.abs(radiance).min(axis=-1) < 1e-3 * np.abs(radiance).max(axis=-1))[..., None]
    strongest = np.abs(radiance).argmax(axis=-1)[..., None]
    scale = np.take_along_axis(radiance, strongest, -1) / np.take_along_axis(closed, strongest, -1)
    return background, np.where(near & lost, scale * closed, radiance)
