"""Triangles to pixels in plain torch: batched, CPU or CUDA, no OpenGL, nothing to compile.

Every triangle is cut into the pixel rows that it crosses, every row into the pixels between two of
its edges, and one scatter keeps the nearest candidate of each pixel. All of it goes in chunks, so
that memory is bounded whatever the size of a triangle, and nothing depends on the order of the
work: the same input gives the same output.

Pixels: x right, y down, the image's top-left corner is (0, 0), so that the pixel in row i and
column j has its centre at (j + 0.5, i + 0.5). Faces wind counter-clockwise seen from outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

_NOTHING = torch.iinfo(torch.int64).max  # behind every depth; its lower half, as int32, is -1
_CHUNK = {"cpu": 2**18, "cuda": 2**22}  # pixels at a time: a CPU's cache, a GPU's launch cost


@dataclass(frozen=True)
class Fragments:
    """What each pixel sees: the nearest triangle, and where on it."""

    face_index: Int64[Tensor, "b h w"]
    """Index into the faces; -1 where there is nothing."""
    barycentric: Float[Tensor, "b h w 3"]
    """Weights of the face's three corners, at least 0, adding up to 1; 0 where there is nothing."""
    depth: Float[Tensor, "b h w"]
    """Depth in the unit of the vertices; infinite where there is nothing."""


@torch.no_grad()
def rasterize(
    vertices: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
    cull_backfaces: bool = True,
    perspective: bool = False,
) -> Fragments:
    """Find the nearest triangle at the centre of every pixel.

    Triangles that share an edge leave no crack and do not overlap: a centre exactly on the edge
    belongs to the triangle on its right or, on a horizontal edge, below. The smallest depth (to
    float32 precision) wins, of equal depths the smallest face index. Triangles without area and
    those with a corner that is not finite are left out. Not differentiable.

    Args:
        vertices: x, y in pixels, depth (smaller is nearer; may be negative unless perspective).
        faces: indices of the three corners, the same for the whole batch.
        height: of the image, pixels.
        width: of the image, pixels.
        cull_backfaces: leave out triangles that show their inner side.
        perspective: the vertices were projected by a pinhole, so 1 / depth is what is linear in
            the image. Triangles with a corner at or behind the camera (depth <= 0) are left out.
    """
    batch, chunk = len(vertices), _CHUNK.get(vertices.device.type, 2**18)
    nearest = torch.full((batch * height * width,), _NOTHING, device=vertices.device)
    exact = vertices.double()
    if perspective:
        visible = exact[..., 2:] > 0
        exact = torch.cat([exact[..., :2], torch.where(visible, -1 / exact[..., 2:], torch.nan)], 2)
    for start in range(0, batch * len(faces), chunk):
        stop = min(start + chunk, batch * len(faces))
        number = torch.arange(start, stop, device=vertices.device)
        triangles = _Triangles.gather(exact, faces, number)
        triangles = triangles[triangles.may_cover(height, width, cull_backfaces)]
        for part in _parts(triangles.num_rows(height), chunk):
            rows = triangles[part].cut_into_rows(height, width)
            for piece in _parts(rows.num_pixels, chunk):
                rows[piece].keep_nearest(nearest)
    # The lower half of each key with its sign: the face index, or -1.
    face_index = nearest.bitwise_left_shift_(32).bitwise_right_shift_(32)
    barycentric = vertices.new_zeros(len(face_index), 3)
    depth = vertices.new_full((len(face_index),), torch.inf)
    for start in range(0, len(face_index), chunk):
        pixel = start + (face_index[start : start + chunk] >= 0).nonzero()[:, 0]
        corners = _corners_at(pixel, face_index, vertices, faces, height * width)
        barycentric[pixel], depth[pixel] = _locate(pixel, corners, height, width, perspective)
    shape = (batch, height, width)
    return Fragments(face_index.view(shape), barycentric.view(*shape, 3), depth.view(shape))
