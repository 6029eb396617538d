"""Light on surfaces: the numbers and formulas that the numba and the torch renderer share.

numba keeps compiled code in `__pycache__` and does not notice when a number here changes: delete
the `.nbi` files there after a change. `tests/datasets/engine/render/test_torch_renderer.py` fails
until then.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SAMPLES = 2
"""Samples of a pixel along each axis."""
SUN_MAP_SIZE, SKY_MAP_SIZE = 192, 72
"""Pixels of the shadow maps' sides."""
WIDEST_FOCAL = 215.0
"""Largest focal length [px] of the surroundings: panoramas are coarse, so that a crop shows at
least 55 degrees of them."""
NEAREST = np.float32(0.05)
"""Triangles with a corner nearer to the camera than this, in metres, are left out."""
SHADOW_BIAS = np.float32(0.02)
"""Metres towards the sun, and along the normal, that a point is moved before it asks for shade."""
SUN_RADIUS, SKY_RADIUS = 1, 2
"""Texels of the shadow maps, on every side, over which the sun's and the sky's shadows are soft."""
ASIDE = np.array([0.02, 0.1, 1.0])
"""Direction in the camera frame to which the rows of all shadow maps are perpendicular; no light
comes from exactly there."""
SKY_SHARE = np.float32(0.6)
"""Share of a point's ambient light that whatever is above it can block."""
DETAIL_REPEATS = 8
"""How often the fine pattern repeats from zenith to nadir."""
SHININESS = 20
"""Exponent of the highlight (Blinn, SIGGRAPH 1977)."""
INSIDE_COSINE = np.float32(0.2)
"""Cosine between a normal and the view above which a garment is seen from its inside."""
HORIZON = np.float32(1e-4)
"""Rays that fall by less than this, per metre of depth, do not meet the ground."""
GROUND_REACH = np.float32(30.0)
"""Metres from the camera beyond which the ground shows no shadow."""
TRANSPARENT = 110
"""Texels with less alpha than this, of 255, are holes in a tested surface."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Shares of linear red, green and blue in the luminance (ITU-R BT.709)."""


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Return the linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """Return the sRGB values of linear light, both in [0, 1]; the inverse of `srgb_to_linear`."""
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


TEXTURE_TO_LINEAR = srgb_to_linear(np.arange(256) / 255).astype(np.float32)
"""Linear light of the 256 values of a texture."""


def encode_panorama(
    image: Float[np.ndarray, "h w 3"],
) -> tuple[UInt8[np.ndarray, "{2*h} {2*w} 3"], np.float32]:
    """Return a panorama as smooth sRGB of twice the resolution, and the linear light of its 255."""
    white = np.float32(image.max())
    # Padded before it is enlarged and blurred: edges repeat at the poles, columns wrap around.
    level = linear_to_srgb(np.asarray(image, np.float32) / white).astype(np.float32)
    level = np.pad(level, ((4, 4), (0, 0), (0, 0)), mode="edge")
    level = np.pad(level, ((0, 0), (4, 4), (0, 0)), mode="wrap")
    level = cv2.resize(level, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    level = cv2.blur(level, (3, 3))[8:-8, 8:-8]
    return np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8), white


def sh_basis(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 9"]:
    """Return the polynomials of the first nine real spherical harmonics, without their factors."""
    x, y, z = directions.T
    one = np.ones_like(x)
    columns = [one, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    return np.stack(columns, axis=1)
