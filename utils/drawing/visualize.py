"""Pictures: a mesh over a photo, its side view, skeletons; drawn with the torch rasteriser.

Vertices to be drawn are (V, 3): x right, y down in pixels, (0, 0) the picture's top-left corner,
and depth away from the viewer in the same unit, so that the shape is not squeezed.
"""

import colorsys
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from smpler.utils.drawing.rasterizer import Fragments, interpolate, rasterize
from smpler.utils.geometry import vertex_normals
from smpler.utils.joints import KEYPOINT_BONES, KEYPOINT_NAMES

Color = tuple[float, float, float]
"""sRGB in [0, 1]."""

Rasterizer = Callable[..., Fragments]
"""`smpler.utils.drawing.rasterizer.rasterize`, or another with its contract."""

MESH_COLOR = (0.93, 0.68, 0.62)
SUPERSAMPLING = 2
BAND_PIXELS = 2**20
"""A larger body is drawn in bands of so many pixels, each of which takes some 200 bytes."""
GAMMA = 2.2
# Directions towards the lights (x right, y down, z away) and how bright they are.
KEY_LIGHT, KEY = (-0.45, -0.65, -0.85), 0.62
FILL_LIGHT, FILL = (0.8, -0.1, -0.5), 0.16
SKY, GROUND = 0.34, 0.2
SPECULAR, SHININESS = 0.07, 20
SIDE_COLORS = {"R": (230, 80, 60), "L": (60, 120, 230), "": (245, 245, 245)}


def palette(count: int) -> list[Color]:
    """Return distinguishable colours; the first is the published mesh colour."""
    golden_ratio = 0.618033988749895
    hue, _, _ = colorsys.rgb_to_hls(*MESH_COLOR)
    others = [
        colorsys.hls_to_rgb((hue + number * golden_ratio) % 1, 0.72, 0.55)
        for number in range(1, count)
    ]
    return [MESH_COLOR, *others][:count]


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    people: Sequence[Float[np.ndarray, "v 3"]],
    faces: Int[np.ndarray, "f 3"],
    colors: Sequence[Color],
    rasterizer: Rasterizer = rasterize,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw people over a photo of the same size; later ones cover earlier ones.

    Args:
        image: RGB; pixels that no body covers come back as they are.
        people: vertices of each person, in pixels as the module's docstring says.
        faces: the triangles, the same for all.
        colors: one for each person.
        rasterizer: finds the triangle at each pixel.
    """
    drawn = image.copy()
    for vertices, color in zip(people, colors, strict=True):
        _draw_over(drawn, vertices, faces, color, rasterizer)
    return drawn


def side_view(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    color: Color = MESH_COLOR,
    size: int = 512,
    rasterizer: Rasterizer = rasterize,
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Show a body from its side on a light ground, turned by a quarter about the vertical axis.

    Args:
        vertices: metres, camera frame.
        faces: the triangles.
        color: the body's.
        size: the picture's side, pixels.
        rasterizer: finds the triangle at each pixel.
    """
    x, y, z = vertices.T
    turned = np.stack([-z, y, x], axis=1)  # the side that faced the camera is on the right
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = 0.85 * size / max((high - low)[:2].max(), 1e-6)
    placed = (turned - (low + high) / 2) * scale + [size / 2, size / 2, 0]
    shade = np.linspace(250, 228, size).astype(np.uint8)
    ground = np.repeat(np.repeat(shade[:, None, None], size, axis=1), 3, axis=2)
    return overlay(ground, [placed], faces, [color], rasterizer=rasterizer)


def draw_skeleton(
    image: UInt8[np.ndarray, "h w 3"],
    keypoints: Float[np.ndarray, "14 2"],
    confidence: Float[np.ndarray, "14"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the 14 keypoints and their bones: right red, left blue; width by the person's size.

    Args:
        image: RGB.
        keypoints: photo pixels, `smpler.utils.joints.KEYPOINT_NAMES`.
        confidence: keypoints at 0 are left out, with their bones.
    """
    drawn = image.copy()
    seen = np.all(np.isfinite(keypoints), axis=1)
    if confidence is not None:
        seen &= confidence > 0
    if not seen.any():
        return drawn
    extent = np.ptp(keypoints[seen], axis=0).max()
    width = max(1, round(extent / 90))
    for start, end in KEYPOINT_BONES:
        if seen[start] and seen[end]:
            color = SIDE_COLORS[_side(start) if _side(start) == _side(end) else ""]
            ends = (_subpixel(keypoints[start]), _subpixel(keypoints[end]))
            cv2.line(drawn, *ends, color, width, cv2.LINE_AA, _SHIFT)
    for number in np.flatnonzero(seen).tolist():
        place, radius = _subpixel(keypoints[number]), (width + 1) << _SHIFT
        cv2.circle(drawn, place, radius, SIDE_COLORS[_side(number)], -1, cv2.LINE_AA, _SHIFT)
    return drawn


def side_by_side(images: Sequence[UInt8[np.ndarray, "h _ 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Put pictures of one height next to each other."""
    return np.concatenate(list(images), axis=1)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int, side: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Put pictures into a grid of squares, each scaled to fit its square, on black."""
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * side, columns * side, 3), np.uint8)
    for number, image in enumerate(images):
        scale = side / max(image.shape[:2])
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        top, left = side * (number // columns), side * (number % columns)
        sheet[top : top + size[1], left : left + size[0]] = small
    return sheet


def render_mesh(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    height: int,
    width: int,
    color: Color = MESH_COLOR,
    rasterizer: Rasterizer = rasterize,
    samples: int = SUPERSAMPLING,
) -> Float[np.ndarray, "{height} {width} 4"]:
    """Render a mesh: sRGB, not premultiplied, and how much of each pixel it covers.

    Pixels are the means of samples x samples points.
    """
    corners = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float32))
    triangles = torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int64))
    enlarged = (corners * samples)[None]
    fragments = rasterizer(enlarged, triangles, height * samples, width * samples)
    light = interpolate(fragments, triangles, _light(corners, triangles)[None])
    mean = F.avg_pool2d(light.permute(0, 3, 1, 2), samples)[0].permute(1, 2, 0)
    diffuse, highlight, alpha = mean.split(1, dim=-1)  # all three weighted by coverage
    linear = (diffuse * torch.tensor(color) ** GAMMA + highlight) / alpha.clamp(min=1e-6)
    return torch.cat([linear.clamp(0, 1) ** (1 / GAMMA), alpha], dim=-1).numpy()


def _draw_over(
    image: UInt8[np.ndarray, "h w 3"],
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    color: Color,
    rasterizer: Rasterizer,
) -> None:
    """Draw one mesh into the picture, working only on the part that it can cover."""
    finite = vertices[np.isfinite(vertices).all(axis=1), :2]
    if len(finite) == 0:
        return
    limits = image.shape[1::-1]
    left, top = np.clip(np.floor(finite.min(axis=0)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(finite.max(axis=0)), 0, limits).astype(int)
    if left >= right or top >= bottom:
        return
    shifted = (vertices - [left, top, 0]).astype(np.float32)
    rows = max(1, BAND_PIXELS // int(right - left))
    for start in range(0, int(bottom - top), rows):
        part = image[top:bottom, left:right][start : start + rows]
        placed = shifted - np.array([0, start, 0], np.float32)
        height, width = part.shape[:2]
        rendered = render_mesh(placed, faces, height, width, color, rasterizer)
        alpha = rendered[..., 3:]
        mixed = rendered[..., :3] * 255 * alpha + part * (1 - alpha)
        part[:] = np.where(alpha > 0, np.rint(mixed).astype(np.uint8), part)


def _light(corners: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Light of every vertex: diffuse and highlight, linear, and 1 for coverage.

    Bodies have more vertices than the eye can tell apart, so that the picture interpolates light
    instead of normals: it looks the same and takes half the time.
    """
    normals = vertex_normals(corners[None], faces)[0]
    key = F.normalize(torch.tensor(KEY_LIGHT), dim=0)
    halfway = F.normalize(key + torch.tensor([0.0, 0.0, -1.0]), dim=0)
    fill = F.normalize(torch.tensor(FILL_LIGHT), dim=0)
    up = 0.5 - 0.5 * normals[:, 1]  # 1 where the surface faces the sky
    diffuse = KEY * (normals @ key).clamp(min=0) + FILL * (normals @ fill).clamp(min=0)
    diffuse = diffuse + GROUND + (SKY - GROUND) * up
    highlight = SPECULAR * (normals @ halfway).clamp(min=0) ** SHININESS
    return torch.stack([diffuse, highlight, torch.ones_like(diffuse)], dim=1)


_SHIFT = 4  # bits of cv2's sub-pixel positions


def _subpixel(place: Float[np.ndarray, "2"]) -> tuple[int, int]:
    """Take our pixels, whose centres lie at halves, to cv2's, whose centres are whole numbers."""
    x, y = np.rint((np.clip(place, -1e5, 1e5) - 0.5) * (1 << _SHIFT)).astype(int).tolist()
    return x, y


def _side(number: int) -> str:
    name = KEYPOINT_NAMES[number]
    return name[0] if name[1] == "_" else ""
