"""What surfaces look like under a light: the numbers that the numba and the torch path share.

Compiled code is kept in __pycache__, and numba does not notice when a number here changes: delete
the `.nbi` files there then. `tests/datasets/engine/render/test_torch_renderer.py` fails until that
is done.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SAMPLES = 2
"""Of a pixel, along each axis."""
SUN_MAP_SIZE, SKY_MAP_SIZE = 192, 72
"""Pixels of the shadow maps' sides."""
WIDEST_FOCAL = 215.0
"""Pixels: surroundings are seen with this focal length or a shorter one, a crop then shows 55
degrees of them, because panoramas are coarse."""
NEAREST = np.float32(0.05)
"""Triangles with a corner nearer to the camera than this, in metres, are left out."""
SHADOW_BIAS = np.float32(0.02)
"""Metres towards the sun, and along the normal, that a point is moved before it asks for shade."""
SUN_RADIUS, SKY_RADIUS = 1, 2
"""Texels of the shadow maps, on every side, over which the sun's and the sky's shadows are soft."""
SKY_SHARE = np.float32(0.6)
"""Share of the ambient light that what stands above a point can take."""
DETAIL_REPEATS = 8
"""How often the fine pattern repeats from zenith to nadir."""
SHININESS = 20
"""Exponent of the highlight (Blinn, SIGGRAPH 1977)."""
GROUND_REACH = np.float32(30.0)
"""Metres from the camera beyond which the ground shows no shadow."""
TRANSPARENT = 110
"""A texel of a tested surface with less alpha than this, of 255, is a hole."""
SH_BASIS = np.array(
    [0.282095, 0.488603, 0.488603, 0.488603, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274]
)
"""Factors of the real spherical harmonics 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2."""


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """Return sRGB values in [0, 1] of linear light in [0, 1]; the inverse of `srgb_to_linear`."""
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


TEXTURE_TO_LINEAR = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


def encode_panorama(
    image: Float[np.ndarray, "h w 3"],
) -> tuple[UInt8[np.ndarray, "{2*h} {2*w} 3"], np.float32]:
    """Return a panorama's light as sRGB, twice as fine and smooth, and the light of its white."""
    white = np.float32(image.max())
    level = linear_to_srgb(np.asarray(image, np.float32) / white).astype(np.float32)
    level = np.pad(level, ((4, 4), (0, 0), (0, 0)), mode="edge")
    level = np.pad(level, ((0, 0), (4, 4), (0, 0)), mode="wrap")
    level = cv2.resize(level, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    level = cv2.blur(level, (3, 3))[8:-8, 8:-8]
    return np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8), white


def sh_basis(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 9"]:
    """Polynomials of the first nine real spherical harmonics, without their factors."""
    x, y, z = directions.T
    one = np.ones_like(x)
    columns = [one, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    return np.stack(columns, axis=1)
