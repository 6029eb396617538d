"""From light to photos in torch on any device: `smpler.datasets.engine.photo` for a batch."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from smpler.datasets.engine.photo import (
    BLUR_RADIUS,
    MIDDLE,
    SHOULDER,
    SUBJECT_PART,
)
from smpler.datasets.engine.render.constants import Constant
from smpler.datasets.engine.render.scene_batch import SceneBatch
from smpler.datasets.engine.surfaces import LUMINANCE

# Annex K of the JPEG standard (ITU-T T.81): luminance, chrominance.
_LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
]  # fmt: skip
_CHROMA = [
    [17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99],
]  # fmt: skip
QUANTA = np.full((3, 8, 8), 99.0)
"""Quantisation steps of Y, Cb, Cr at quality 50."""
QUANTA[0], QUANTA[1:, :4, :4] = _LUMA, _CHROMA

_FREQUENCY, _PLACE = np.mgrid[:8, :8]
COSINES = np.cos((2 * _PLACE + 1) * _FREQUENCY * np.pi / 16) / 2
"""(frequency, place): the orthonormal discrete cosine transform of 8 samples."""
COSINES[0] /= np.sqrt(2)

TO_YCC = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.168735892, -0.331264108, 0.5],
        [0.5, -0.418687589, -0.081312411],
    ]
)
"""From RGB to JFIF's Y, Cb, Cr; the last two about 128."""

_LUMINANCE, _QUANTA, _COSINES = Constant(LUMINANCE), Constant(QUANTA.astype(int)), Constant(COSINES)
_TO_YCC, _FROM_YCC = Constant(TO_YCC), Constant(torch.linalg.inv(torch.tensor(TO_YCC).float()))


def develop(
    light: Float[Tensor, "b s s 3"],
    mask: Float[Tensor, "b s s"],
    photos: SceneBatch,
    bank: Float[Tensor, "n n 3"],
) -> Float[Tensor, "b 3 s s"]:
    """Return photos of linear light: sRGB in [0, 1], coloured by each photo's gains.

    Args:
        mask: the subjects' share of each pixel.
        photos: what `smpler.datasets.engine.render.scene_batch.pack_photos` returns, on the light's
            device.
        bank: of `smpler.datasets.engine.photo.noise_bank`.
    """
    image = _blur(light.permute(0, 3, 1, 2), photos["blur"])
    luminance = torch.einsum("bchw,c->bhw", image, _LUMINANCE.like(image))
    root = luminance.clamp(min=0).sqrt()
    covered = mask.sum(dim=(1, 2))
    subject = (root * mask).sum(dim=(1, 2)) / covered.clamp(min=1e-6)
    # metering: (b, 1, 1, 1) -> (b,)
    weight = photos["metering"][:, 0, 0, 0] * (mask.mean(dim=(1, 2)) / SUBJECT_PART).clamp(max=1)
    root = torch.lerp(root.mean(dim=(1, 2)), subject, weight)
    gain = MIDDLE / root.square().clamp(min=1e-6)
    image = image * gain[:, None, None, None] * photos["exposure"] * photos["white_balance"]
    image = (image / (1 + SHOULDER * (image - SHOULDER).clamp(min=0))).clamp(0, 1)
    low = image <= 0.0031308
    image = torch.where(low, image * 12.92, 1.055 * image.clamp(min=1e-8) ** (1 / 2.4) - 0.055)
    level = (image - 0.5) * (255 * photos["contrast"]) + 127.5
    level = level + photos["noise"] * _noise(bank, photos["noise_offset"], level.shape[-1])
    level = jpeg(level.clamp(0, 255).round(), photos["quality"])
    return (level / 255 * photos["gains"]).clamp(0, 1)


def _blur(
    image: Float[Tensor, "b 3 s s"], kernels: Float[Tensor, "b 2 n"]
) -> Float[Tensor, "b 3 s s"]:
    """Blur along x and y: every plane of the batch is a channel (b * 3) with its own kernels."""
    kernels = kernels[:, None].expand(-1, 3, -1, -1).flatten(0, 1)  # (b, 2, n) -> (b * 3, 2, n)
    planes, size = image.flatten(0, 1)[None], image.shape[-1]  # (1, b * 3, s, s)
    padded = F.pad(planes, (BLUR_RADIUS,) * 4, mode="replicate")
    padded = F.conv2d(padded, kernels[:, 0, None, None, :], groups=len(kernels))
    padded = F.conv2d(padded, kernels[:, 1, None, :, None], groups=len(kernels))
    return padded.view(-1, 3, size, size)


def _noise(
    bank: Float[Tensor, "n n 3"], offset: Int[Tensor, "b 2"], size: int
) -> Float[Tensor, "b 3 {size} {size}"]:
    """Return each photo's part of the noise bank, which repeats."""
    # (b, 2, size): rows, columns
    place = (offset[..., None] + torch.arange(size, device=bank.device)) % len(bank)
    return bank[place[:, 0, :, None], place[:, 1, None, :]].permute(0, 3, 1, 2)


def quanta(quality: Int[Tensor, "b"]) -> Float[Tensor, "b 3 8 8"]:
    """Return the quantisation steps at qualities of 1 to 100, scaled as in libjpeg."""
    quality = quality[:, None, None, None]
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = (_QUANTA.like(quality) * percent + 50) // 100
    return steps.clamp(1, 255).float()


def jpeg(image: Float[Tensor, "b 3 s s"], quality: Int[Tensor, "b"]) -> Float[Tensor, "b 3 s s"]:
    """Return what JPEG with chrominance of half the size leaves of images, levels in [0, 255].

    The side must be a multiple of 16.
    """
    steps = quanta(quality)
    planes = torch.einsum("kc,bchw->bkhw", _TO_YCC.like(image), image)
    luma = _through_blocks(planes[:, :1].round() - 128, steps[:, :1]) + 128
    colors = F.avg_pool2d(planes[:, 1:], 2).round()
    colors = _through_blocks(colors, steps[:, 1:]).round()
    colors = F.interpolate(colors, scale_factor=2, mode="bilinear", align_corners=False).round()
    planes = torch.cat([luma.round().clamp(0, 255), colors], dim=1)
    image = torch.einsum("ck,bkhw->bchw", _FROM_YCC.like(image), planes)
    return image.round().clamp(0, 255)


def _through_blocks(
    planes: Float[Tensor, "b k h w"], steps: Float[Tensor, "b k 8 8"]
) -> Float[Tensor, "b k h w"]:
    """Transform blocks of 8 x 8, quantise, and transform back."""
    cosines = _COSINES.like(planes)
    # (b, k, h, w) -> (b, k, h / 8, 8, w / 8, 8) -> (b, k, h / 8, w / 8, 8, 8)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    steps = steps[:, :, None, None]

    def both_sides(matrix: Tensor, x: Tensor) -> Tensor:
        """Matrix @ x @ matrix.T, without a product for each block."""
        return ((x @ matrix.T).mT @ matrix.T).mT

    quantised = (both_sides(cosines, blocks) / steps).round() * steps
    return both_sides(cosines.T, quantised).transpose(3, 4).flatten(4, 5).flatten(2, 3)
