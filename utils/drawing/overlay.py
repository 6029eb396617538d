"""Bodies drawn over the photo that shows them, and the pictures written as PNG.

Photo pixels: x right, y down, (0, 0) is the photo's top-left corner. Depth away from the viewer is
in the same unit.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from smpler.utils.camera import project_pinhole
from smpler.utils.drawing.rasterizer import Fragments, rasterize
from smpler.utils.drawing.visualize import (
    BAND_PIXELS,
    SUPERSAMPLING,
    Color,
    Rasterizer,
    render_mesh,
    side_by_side,
)
from smpler.utils.image import STRIP_PIXELS, PngWriter, write_image

MAX_WHOLE = 2**24
"""Pixels of a photo up to which its pictures are made whole; of a larger one, strip by strip."""
NEAR = 0.05
"""Distance from the camera up to which nothing is drawn, metres."""


@dataclass(frozen=True)
class PlacedBody:
    """A body where a photo shows it."""

    vertices: Float[np.ndarray, "v 3"]
    """Photo pixels and depth; NaN where the camera does not see them."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles without NaN, counter-clockwise seen from outside."""
    color: Color


def place_body(
    points: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    color: Color,
    focal_length: float,
    principal_point: Float[np.ndarray, "2"],
) -> PlacedBody:
    """Place a body where the full-image camera sees it.

    Its depth is focal_length * log(z): it tells who is nearer among all bodies of a photo, and at
    every distance a small step away is as long as the same step sideways, so that the drawn shape
    is not squeezed. Triangles that reach nearer than NEAR are left out.

    Args:
        points: the mesh before the camera, metres, x right, y down, z away.
        faces: its triangles.
        color: what it is drawn in.
        focal_length: pixels.
        principal_point: pixels.
    """
    seen = points[:, 2] > NEAR
    before = np.where(seen[:, None], points, np.nan)
    places = project_pinhole(before, focal_length, principal_point)
    vertices = np.concatenate([places, focal_length * np.log(before[:, 2:])], axis=1)
    return PlacedBody(vertices, faces[seen[faces].all(axis=1)], color)


def write_overlay(
    photo: UInt8[np.ndarray, "h w 3"],
    bodies: Sequence[PlacedBody],
    rasterizer: Rasterizer = rasterize,
    path: Path | None = None,
    beside: Path | None = None,
) -> None:
    """Draw bodies over their photo and write it as PNG.

    Args:
        photo: RGB.
        bodies: what is drawn.
        rasterizer: finds the triangles.
        path: of the overlay; None leaves it out.
        beside: path of the photo and its overlay side by side; None leaves it out.
    """
    height, width = photo.shape[:2]
    if height * width <= MAX_WHOLE:
        drawn = draw_bodies(photo, bodies, rasterizer)
        if beside is not None:
            write_image(beside, side_by_side([photo, drawn]))
        if path is not None:
            write_image(path, drawn)
        return
    rows = max(1, STRIP_PIXELS // width)
    with ExitStack() as stack:
        pair = alone = None
        if beside is not None:
            pair = stack.enter_context(PngWriter(beside, 2 * width, height))
        if path is not None:
            alone = stack.enter_context(PngWriter(path, width, height))
        for top in range(0, height, rows):
            strip = photo[top : top + rows]
            drawn = draw_bodies(strip, bodies, rasterizer, top)
            if pair is not None:
                pair.write(side_by_side([strip, drawn]))
            if alone is not None:
                alone.write(drawn)


def draw_bodies(
    photo: UInt8[np.ndarray, "h w 3"],
    bodies: Sequence[PlacedBody],
    rasterizer: Rasterizer = rasterize,
    top: int = 0,
    samples: int = SUPERSAMPLING,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw bodies over their photo; at each place the nearest is seen, also where two touch.

    Args:
        photo: RGB, or its rows from `top` on; pixels that no body covers come back as they are.
        bodies: in any order.
        rasterizer: finds the triangles.
        top: first row of the photo.
        samples: points along a pixel's side; 1 is four times as fast as 2, with rough edges.
    """
    drawn = photo.copy()
    boxes = [_box(body, (0, top), photo.shape[:2]) for body in bodies]
    for group in _groups(boxes):
        left, first = (min(boxes[number][axis] for number in group) for axis in (0, 1))
        right, last = (max(boxes[number][axis] for number in group) for axis in (2, 3))
        widths = sum(boxes[number][2] - boxes[number][0] for number in group)
        rows = max(1, BAND_PIXELS // max(widths, right - left))  # of a band, to bound memory
        for start in range(first, last, rows):
            part = drawn[start : min(start + rows, last), left:right]
            members = [bodies[number] for number in group]
            _draw_into(part, members, (left, top + start), rasterizer, samples)
    return drawn


PixelBox = tuple[int, int, int, int]
"""Left, top, right, bottom of whole pixels."""


def _groups(boxes: Sequence[PixelBox]) -> list[list[int]]:
    """Sort boxes, by number, into groups that share no pixel; boxes without pixels are left out."""
    groups = []
    for number, box in enumerate(boxes):
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        touched = [group for group in groups if any(_overlap(boxes[x], box) for x in group)]
        groups = [group for group in groups if group not in touched]
        groups.append(sorted([number, *(other for group in touched for other in group)]))
    return groups


def _overlap(first: PixelBox, second: PixelBox) -> bool:
    """Say whether two boxes share a pixel."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width > 0 and height > 0


def _box(body: PlacedBody, corner: tuple[int, int], size: tuple[int, ...]) -> PixelBox:
    """Return the pixels that a body can cover in a part of the photo.

    Args:
        body: in the photo.
        corner: x, y of the part.
        size: height and width of the part.
    """
    finite = body.vertices[np.isfinite(body.vertices).all(axis=1), :2] - corner
    if len(finite) == 0:
        return 0, 0, 0, 0
    limits = size[1], size[0]
    left, top = np.clip(np.floor(finite.min(axis=0)), 0, limits).astype(int).tolist()
    right, bottom = np.clip(np.ceil(finite.max(axis=0)), 0, limits).astype(int).tolist()
    return left, top, right, bottom


@dataclass(frozen=True)
class _Layer:
    """What one body covers of a part of the photo."""

    body: PlacedBody
    """Its pixels begin at the corner of `place`."""
    place: tuple[slice, slice]
    """Rows and columns of the part."""
    fragments: Fragments
    samples: int
    """Points along a pixel's side."""

    @property
    def points(self) -> tuple[slice, slice]:
        """Rows and columns of its fragments among those of the whole part."""
        rows, columns = (
            slice(side.start * self.samples, side.stop * self.samples) for side in self.place
        )
        return rows, columns

    def render(self, seen: Bool[Tensor, "y x"]) -> Float[np.ndarray, "h w 4"]:
        """Return sRGB, and the coverage of each pixel, by only the samples that are seen."""
        index = torch.where(seen, self.fragments.face_index, -1)
        visible = replace(self.fragments, face_index=index)
        rows, columns = self.place
        return render_mesh(
            self.body.vertices,
            self.body.faces,
            rows.stop - rows.start,
            columns.stop - columns.start,
            self.body.color,
            rasterizer=lambda *_: visible,
            samples=self.samples,
        )


def _rasterize(
    body: PlacedBody,
    corner: tuple[int, int],
    size: tuple[int, ...],
    rasterizer: Rasterizer,
    samples: int,
) -> _Layer | None:
    """Find what a body covers of a part of the photo; None when it is elsewhere."""
    left, top, right, bottom = _box(body, corner, size)
    if left >= right or top >= bottom:
        return None
    vertices = (body.vertices - [corner[0] + left, corner[1] + top, 0]).astype(np.float32)
    fragments = rasterizer(
        torch.from_numpy(vertices * samples)[None],
        torch.from_numpy(body.faces),
        (bottom - top) * samples,
        (right - left) * samples,
    )
    place = slice(top, bottom), slice(left, right)
    return _Layer(replace(body, vertices=vertices), place, fragments, samples)


def _draw_into(
    part: UInt8[np.ndarray, "h w 3"],
    bodies: Sequence[PlacedBody],
    corner: tuple[int, int],
    rasterizer: Rasterizer,
    samples: int,
) -> None:
    """Draw bodies into a part of the photo, by one depth buffer for all of them.

    Args:
        part: is painted on.
        bodies: in the photo.
        corner: x, y of the part.
        rasterizer: finds the triangles.
        samples: points along a pixel's side.
    """
    height, width = part.shape[:2]
    found = [_rasterize(body, corner, (height, width), rasterizer, samples) for body in bodies]
    layers = [layer for layer in found if layer is not None]
    nearest = torch.full((height * samples, width * samples), torch.inf)
    owner = torch.full_like(nearest, -1, dtype=torch.int32)
    for number, layer in enumerate(layers):
        depth = layer.fragments.depth[0]
        owner[layer.points].masked_fill_(depth < nearest[layer.points], number)
        nearest[layer.points] = torch.minimum(depth, nearest[layer.points])
    shown = np.zeros((height, width, 4), np.float32)  # colour weighted by coverage, and coverage
    for number, layer in enumerate(layers):
        rendered = layer.render(owner[layer.points] == number)
        rendered[..., :3] *= rendered[..., 3:]
        shown[layer.place] += rendered
    covered = shown[..., 3] > 0
    color, alpha = shown[covered][:, :3], shown[covered][:, 3:]
    part[covered] = np.rint(color * 255 + part[covered] * (1 - alpha)).astype(np.uint8)
