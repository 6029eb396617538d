"""From light to a photo: exposure, lens, tone curve, noise, JPEG."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from smpler.datasets.augment import GAIN_SPREAD
from smpler.datasets.engine.surfaces import LUMINANCE, linear_to_srgb
from smpler.utils.image import CROP_SIZE

MIDDLE = 0.2
"""Linear light of a correctly exposed photo: its square roots' mean, squared."""
MAX_METERING = 0.9
"""Largest `Photo.metering` that is drawn."""
SHOULDER = 0.8
"""Linear light above which the tone curve bends."""
NOISE_SIZE = 512
"""Pixels of the noise bank's side."""
_NUM_TONES = 4096


@dataclass(frozen=True)
class Photo:
    """What the camera does to the light."""

    exposure: float = 1.0
    """Factor on the automatic exposure."""
    metering: float = 0.0
    """Weight of the subject, rather than the whole crop, in the automatic exposure, [0, 1]."""
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: tuple[float, float] = (0.0, 0.0)
    """Standard deviations of the lens's and motion's blur along x and y, pixels."""
    contrast: float = 1.0
    """Factor on the distance from middle grey."""
    noise: float = 0.0
    """Standard deviation, levels of 255."""
    noise_offset: tuple[int, int] = (0, 0)
    """Where in the noise bank this photo's noise starts."""
    quality: int = 100
    """Of the JPEG, 1 to 100."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Training's factors of red, green and blue, on the finished photo."""


def sample_photo(rng: np.random.Generator, side: float, training: bool) -> Photo:
    """Draw how a photo was taken.

    Args:
        side: of the crop in photo pixels; a small crop is enlarged, hence blurred.
        training: colour it as the published augmentation does.
    """
    enlarged = 0.4 * max(CROP_SIZE / side - 1, 0)
    lens = rng.uniform(0, 0.9) if rng.random() < 0.6 else 0.0
    moved = rng.exponential(0.8, 2) if rng.random() < 0.12 else np.zeros(2)
    blur = np.minimum(np.sqrt(enlarged**2 + lens**2 + moved**2), MAX_BLUR)
    gains = rng.uniform(1 - GAIN_SPREAD, 1 + GAIN_SPREAD, 3) if training else np.ones(3)
    return Photo(
        exposure=float(np.exp(rng.normal(0, 0.3))),
        white_balance=tuple(np.exp(rng.normal(0, 0.06, 3)).tolist()),
        blur=tuple(blur.tolist()),
        contrast=float(rng.uniform(0.8, 1.15)),
        noise=float(rng.exponential(2.5) if rng.random() < 0.7 else 0.0),
        noise_offset=tuple(rng.integers(NOISE_SIZE, size=2).tolist()),
        quality=int(rng.integers(40, 98)),
        gains=tuple(gains.tolist()),
        metering=float(rng.uniform(0, MAX_METERING)),
    )


SUBJECT_PART = 0.05
"""Share of the crop that the subject must cover to count in full for the exposure."""
MAX_BLUR = 2.5
"""Largest standard deviation of a blur, pixels."""
BLUR_RADIUS = 6
"""Pixels on either side that a blur averages."""


def noise_bank() -> Float[np.ndarray, "{NOISE_SIZE} {NOISE_SIZE} 3"]:
    """Return normal noise, the same on every device, from which each photo takes a part."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((NOISE_SIZE, NOISE_SIZE, 3), dtype=np.float32)


def blur_kernel(sigma: float) -> Float[np.ndarray, "{2*BLUR_RADIUS+1}"]:
    """Return a normal distribution's weights at whole pixels, sum 1; sigma 0: no blur."""
    place = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    weight = np.exp(-0.5 * (place / max(sigma, 1e-3)) ** 2)
    return (weight / weight.sum()).astype(np.float32)


_TONES = linear_to_srgb((np.arange(_NUM_TONES) / (_NUM_TONES - 1)) ** 2).astype(np.float32)
"""sRGB by the square root of linear light: steps of the root look about even to the eye."""


def develop(
    light: Float[np.ndarray, "h w 3"],
    mask: Float[np.ndarray, "h w"],
    photo: Photo,
    bank: Float[np.ndarray, "n n 3"],
) -> Float[np.ndarray, "h w 3"]:
    """Return the photo of linear light: sRGB in [0, 1], without the photo's `gains`.

    Args:
        mask: the subject's share of each pixel.
    """
    if max(photo.blur) > 0:
        kernels = (blur_kernel(sigma) for sigma in photo.blur)
        light = cv2.sepFilter2D(light, -1, *kernels, borderType=cv2.BORDER_REPLICATE)
    root = np.sqrt(light @ LUMINANCE.astype(np.float32))
    seen = min(float(mask.mean()) / SUBJECT_PART, 1)  # a subject that is hardly seen does not count
    subject = float((root * mask).sum()) / max(float(mask.sum()), 1e-6)
    weight = photo.metering * seen
    root = (1 - weight) * float(root.mean()) + weight * subject
    gain = photo.exposure * MIDDLE / max(root**2, 1e-6)
    light = light * (np.float32(photo.white_balance) * np.float32(gain))
    light /= 1 + np.float32(SHOULDER) * np.maximum(light - np.float32(SHOULDER), 0)
    tone = np.sqrt(np.clip(light, 0, 1)) * (_NUM_TONES - 1) + 0.5  # + 0.5: to be rounded
    level = _TONES[tone.astype(np.int32)]
    level = (level - 0.5) * np.float32(255 * photo.contrast) + np.float32(127.5)
    if photo.noise > 0:
        level += np.float32(photo.noise) * _window(bank, photo.noise_offset, level.shape)
    return jpeg(np.rint(np.clip(level, 0, 255)).astype(np.uint8), photo.quality)


def _window(bank: np.ndarray, offset: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Return a part of the noise bank, which repeats."""
    rows, columns = ((o + np.arange(n)) % NOISE_SIZE for o, n in zip(offset, shape, strict=False))
    return bank[np.ix_(rows, columns)]


def jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> Float[np.ndarray, "h w 3"]:
    """Return what JPEG compression leaves of an image, in [0, 1]."""
    data = np.frombuffer(jpeg_bytes(image, quality), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1] * np.float32(1 / 255)


def jpeg_bytes(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """Encode an RGB image as a JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
