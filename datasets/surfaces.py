"""What surfaces look like under a light: the numbers that the numba and the torch path share."""

import numpy as np
from jaxtyping import Float

NEAREST = np.float32(0.05)
"""Triangles with a corner nearer to the camera than this, in metres, are left out."""
SHADOW_BIAS = np.float32(0.02)
"""Metres towards the sun, and along the normal, that a point is moved before it asks for shade."""
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


def sh_basis(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 9"]:
    """Polynomials of the first nine real spherical harmonics, without their factors."""
    x, y, z = directions.T
    one = np.ones_like(x)
    columns = [one, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    return np.stack(columns, axis=1)
