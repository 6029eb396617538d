"""Textures of one size, sRGB with alpha, and patterns for cloth and objects."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

TEXTURE_SIZE = 512
"""Pixels of a texture's side: one size for all, so that they make one array."""
NOISE = 1
"""Index of the noise among the patterns."""

Texture = UInt8[np.ndarray, "{TEXTURE_SIZE} {TEXTURE_SIZE} 4"]


def fit_texture(image: UInt8[np.ndarray, "h w c"]) -> Texture:
    """Bring an sRGB image with or without alpha to the common size."""
    if image.shape[2] == 3:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    if image.shape[:2] == (TEXTURE_SIZE, TEXTURE_SIZE):
        return image
    way = cv2.INTER_AREA if image.shape[0] > TEXTURE_SIZE else cv2.INTER_LINEAR
    return cv2.resize(image, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=way)


def pattern_textures() -> UInt8[np.ndarray, "p {TEXTURE_SIZE} {TEXTURE_SIZE} 4"]:
    """Return grey patterns that repeat.

    In this order: plain, noise, stripes, bands, checks, plaid, dots, planks, bricks.
    """
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / TEXTURE_SIZE
    noise = _noise(np.random.default_rng(0))
    fine = 0.85 + 0.3 * (noise - 0.5)
    stripes = (x * 16 % 1) < 0.5
    bands = (y * 12 % 1) < 0.35
    dots = np.hypot(x * 16 % 1 - 0.5, y * 16 % 1 - 0.5) < 0.3
    row = np.floor(y * 12)
    mortar = ((y * 12 % 1) < 0.12) | (((x * 6 + row % 2 / 2) % 1) < 0.05)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (x * 8 + 0.6 * noise))
    patterns = [
        np.ones_like(x),
        0.25 + 0.75 * noise,
        np.where(stripes, 1.0, 0.45),
        np.where(bands, 1.0, 0.4),
        np.where(stripes ^ ((y * 16 % 1) < 0.5), 0.95, 0.5),
        0.4 + 0.3 * stripes + 0.3 * ((y * 16 % 1) < 0.5),
        np.where(dots, 1.0, 0.5),
        (0.55 + 0.35 * grain) * np.where((x * 4 % 1) < 0.02, 0.5, 1),
        np.where(mortar, 0.95, 0.45 + 0.2 * noise),
    ]
    grey = np.stack([np.clip(pattern * fine, 0, 1) for pattern in patterns])
    return _grey_texture(grey)


def _noise(rng: np.random.Generator) -> Float[np.ndarray, "{TEXTURE_SIZE} {TEXTURE_SIZE}"]:
    """Return noise of all scales that repeats, [0, 1]."""
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(TEXTURE_SIZE, 1 / TEXTURE_SIZE)] * 2))
    # Amplitudes fall as frequency ** -1.1.
    spectrum = np.fft.fft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE)))
    noise = np.fft.ifft2(spectrum / np.maximum(frequency, 2) ** 1.1).real
    low, high = np.percentile(noise, [1, 99])
    return np.clip((noise - low) / (high - low), 0, 1)


def _grey_texture(grey: Float[np.ndarray, "p s s"]) -> UInt8[np.ndarray, "p s s 4"]:
    value = np.rint(255 * grey).astype(np.uint8)
    return np.stack([value, value, value, np.full_like(value, 255)], axis=-1)
