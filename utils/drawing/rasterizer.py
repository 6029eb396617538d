"""Triangles to pixels in plain torch: batched, CPU or CUDA, no OpenGL, nothing to compile.

Every triangle is cut into the pixel rows that it crosses, every row into the pixels between two
edges, and one scatter keeps the nearest candidate of each pixel. The work is done in chunks, so
that memory is bounded whatever a triangle's size; the result does not depend on their order.

Pixels: x right, y down, the image's top-left corner is (0, 0), so that the pixel in row i and
column j has its centre at (j + 0.5, i + 0.5). Faces wind counter-clockwise seen from outside.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

_CHUNK = {"cpu": 2**18, "cuda": 2**23}
"""Pixels, rows or triangles at a time: as many as fit a CPU's cache or keep a GPU busy."""
_NOTHING = torch.iinfo(torch.int64).max
"""The key of an empty pixel: behind every depth, and its lower half is a 32-bit -1."""


@dataclass(frozen=True)
class Fragments:
    """What each pixel sees: the nearest triangle, and where on it."""

    face_index: Int64[Tensor, "b h w"]
    """Index into the faces; -1 where there is nothing."""
    barycentric: Float[Tensor, "b h w 3"]
    """Weights of the face's three corners: in [0, 1], sum 1; all 0 where there is nothing."""
    depth: Float[Tensor, "b h w"]
    """In the unit of the vertices' depth; infinite where there is nothing."""

    @cached_property
    def covered(self) -> Int64[Tensor, "p"]:
        """The pixels that see a face, as numbers of all pixels of the batch."""
        return (self.face_index.flatten() >= 0).nonzero()[:, 0]


@torch.no_grad()
def rasterize(
    vertices: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
    cull_backfaces: bool = True,
    perspective: bool = False,
) -> Fragments:
    """Find the nearest triangle at the centre of every pixel; not differentiable.

    Triangles that share an edge leave no crack and do not overlap: a centre exactly on the edge
    belongs to the triangle on its right or, on a horizontal edge, below. The smallest depth wins,
    compared in float32, and of equal depths the smallest face index. Triangles without area, or
    with a corner that is not finite, are left out.

    Args:
        vertices: x, y in pixels, and depth; smaller is nearer, negative is allowed.
        faces: corners' indices, the same for the whole batch.
        height: of the image, pixels.
        width: of the image, pixels.
        cull_backfaces: leave out triangles that show their inside.
        perspective: the vertices were projected by a pinhole camera, so that 1 / depth is linear
            in the image. Triangles with a corner at or behind the camera (depth <= 0) are left
            out.
    """
    batch, num_faces = len(vertices), len(faces)
    item = torch.arange(batch, device=vertices.device)
    packed = (faces.long() + vertices.shape[1] * item[:, None, None]).flatten(0, 1)
    fragments = rasterize_packed(
        vertices.flatten(0, 1),
        packed,
        item.repeat_interleave(num_faces),
        (batch, height, width),
        two_sided=None if cull_backfaces else torch.ones_like(packed[:, 0], dtype=torch.bool),
        perspective=perspective,
    )
    for number, face_index in enumerate(fragments.face_index[1:], start=1):
        face_index.sub_(number * num_faces * (face_index >= 0))
    return fragments


Accept = Callable[[Int64[Tensor, "n"], Float[Tensor, "n 3"]], Bool[Tensor, "n"]]
"""Takes faces and barycentric weights on them; tells whether each face is solid at that point."""


@torch.no_grad()
def rasterize_packed(
    vertices: Float[Tensor, "v 3"],
    faces: Int64[Tensor, "f 3"],
    item: Int64[Tensor, "f"],
    shape: tuple[int, int, int],
    two_sided: Bool[Tensor, "f"] | None = None,
    perspective: bool = False,
    tested: Bool[Tensor, "f"] | None = None,
    accept: Accept | None = None,
) -> Fragments:
    """Rasterize a batch whose items have different faces, all in one list.

    Args:
        vertices: of all items.
        faces: of all items; indices into all vertices. The result's `face_index` counts through
            all faces.
        item: index of the batch item that each face belongs to.
        shape: number of items, height and width.
        two_sided: whether a face is seen from behind as well; None: no face is.
        perspective: as in `rasterize`.
        tested: whether a face may have holes; None: no face has.
        accept: tells where such faces are solid.
    """
    exact = _linear_in_image(vertices.double(), perspective)
    if two_sided is None:
        two_sided = torch.zeros_like(item, dtype=torch.bool)
    sides = zip(exact.T, shape[:0:-1], strict=False)  # x and width, y and height
    centers = torch.stack([_first_center(x, side).int() for x, side in sides], dim=1)
    given = vertices, exact, centers, faces, item, two_sided, perspective, tested, accept
    triangles = _Triangles(*given)
    chunk = _CHUNK.get(vertices.device.type, _CHUNK["cpu"])
    nearest = torch.full((math.prod(shape),), _NOTHING, device=vertices.device)
    for start in range(0, len(faces), chunk):
        triangles.keep_nearest(nearest, slice(start, start + chunk), shape[1:], chunk)
    return triangles.locate(nearest, shape, chunk)


@dataclass(frozen=True)
class _Triangles:
    """The triangles of all items of a batch."""

    vertices: Float[Tensor, "v 3"]
    exact: Float64[Tensor, "v 3"]
    """The vertices as `_linear_in_image` gives them."""
    centers: Int[Tensor, "v 2"]
    """The first column, and row, whose centre lies at a vertex or after it."""
    faces: Int64[Tensor, "f 3"]
    item: Int64[Tensor, "f"]
    two_sided: Bool[Tensor, "f"]
    perspective: bool
    tested: Bool[Tensor, "f"] | None
    accept: Accept | None

    def keep_nearest(
        self, nearest: Int64[Tensor, "p"], some: slice, size: tuple[int, int], chunk: int
    ) -> None:
        """Lower the keys of the pixels that some of the triangles cover."""
        height, width = size
        centers = self.centers[self.faces[some]]  # (n, 3, 2)
        first, count = centers.amin(1), centers.amax(1) - centers.amin(1)
        chosen = (count > 0).all(1).nonzero()[:, 0]
        face = chosen + some.start
        corners = self.exact[self.faces[face]]
        count = torch.where(_are_shown(corners, self.two_sided[face]), count[chosen, 1], 0).long()
        crossed = torch.stack([first[chosen, 1].long(), count, self.item[face] * height], dim=1)
        for part, num_rows in _parts(count, chunk):
            rows = _cut_into_rows(corners[part], face[part], crossed[part], num_rows, width)
            for piece, num_pixels in _parts(rows.num_pixels, chunk):
                pixel, key = rows.candidates(piece, num_pixels)
                key = self._without_holes(pixel, key, size)
                nearest.scatter_reduce_(0, pixel, key, "amin")

    def _without_holes(
        self, pixel: Int64[Tensor, "n"], key: Int64[Tensor, "n"], size: tuple[int, int]
    ) -> Int64[Tensor, "n"]:
        """Empty the keys of pixels at which a face has a hole."""
        if self.tested is None or self.accept is None:
            return key
        asked = self.tested[key.bitwise_and(0xFFFFFFFF)].nonzero()[:, 0]
        face = key[asked].bitwise_and(0xFFFFFFFF)
        solid = self.accept(face, self.weights(face, pixel[asked], size)[0])
        return key.index_copy(0, asked, torch.where(solid, key[asked], _NOTHING))

    def weights(
        self, face: Int64[Tensor, "n"], pixel: Int64[Tensor, "n"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
        """Barycentric weights, and depth, of triangles at the centres of pixels."""
        height, width = size
        center = torch.stack([pixel % width, pixel // width % height], dim=1) + 0.5
        corners = self.vertices[self.faces[face]]
        weights = _barycentric(center.to(corners), corners[..., :2])
        if self.perspective:
            weights = F.normalize(weights / corners[..., 2], p=1, dim=1)
        return weights, (weights * corners[..., 2]).sum(1)

    def locate(
        self, nearest: Int64[Tensor, "p"], shape: tuple[int, int, int], chunk: int
    ) -> Fragments:
        """Turn each pixel's key into a face, and compute where on that face the pixel lies."""
        # The lower half of a key with its sign; in place, for this is the largest array.
        face_index = nearest.bitwise_left_shift_(32).bitwise_right_shift_(32)
        barycentric = self.vertices.new_zeros(len(face_index), 3)
        depth = self.vertices.new_full((len(face_index),), torch.inf)
        seen = Fragments(face_index.view(shape), barycentric.view(*shape, 3), depth.view(shape))
        for pixel in seen.covered.split(chunk):
            barycentric[pixel], depth[pixel] = self.weights(face_index[pixel], pixel, shape[1:])
        return seen


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "f 3"], attributes: Float[Tensor, "b v c"]
) -> Float[Tensor, "b h w c"]:
    """Interpolate the vertices' attributes at every pixel; 0 where there is nothing."""
    num_vertices, channels = attributes.shape[1:]
    face_index, barycentric = fragments.face_index.flatten(), fragments.barycentric.flatten(0, 2)
    pixel = fragments.covered
    item = pixel // fragments.face_index[0].numel()
    corners = faces.long()[face_index[pixel]] + item[:, None] * num_vertices
    seen = attributes.new_zeros(len(pixel), channels)
    for corner, weight in zip(corners.T, barycentric[pixel].T, strict=True):
        seen = seen + weight[:, None] * attributes.flatten(0, 1)[corner]
    image = attributes.new_zeros(len(face_index), channels).index_copy(0, pixel, seen)
    return image.view(*fragments.face_index.shape, channels)


def _linear_in_image(vertices: Float64[Tensor, "v 3"], perspective: bool) -> Float64[Tensor, "v 3"]:
    """Replace depth by a measure that is linear in the image and grows with depth.

    It is NaN at and behind a pinhole camera, so that such triangles are left out.
    """
    places, depth = vertices.split([2, 1], dim=1)
    if perspective:
        depth = torch.where(depth > 0, -1 / depth, torch.nan)
    return torch.cat([places, depth], dim=1)


def _are_shown(
    corners: Float64[Tensor, "n 3 3"], two_sided: Bool[Tensor, "n"]
) -> Bool[Tensor, "n"]:
    """Say which triangles face the camera, or may be seen from behind, and are finite."""
    x, y, z = corners.unbind(-1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    facing = (area < 0) | (two_sided & (area > 0))  # y points down: counter-clockwise is negative
    return facing & area.isfinite() & z.sum(1).isfinite()


def _first_center(place: Float64[Tensor, "n"], size: int) -> Int64[Tensor, "n"]:
    """Index of the first of `size` pixels whose centre is at this place or after it."""
    return (place - 0.5).ceil().nan_to_num(0).clamp(0, size).long()


@dataclass(frozen=True)
class _Rows:
    """Pixels side by side that one triangle covers."""

    face: Int64[Tensor, "n"]
    first_pixel: Int64[Tensor, "n"]
    """Index into the pixels of the whole batch."""
    num_pixels: Int64[Tensor, "n"]
    depth: Float[Tensor, "n"]
    """At the first pixel; -1 / depth when it was made for a pinhole camera."""
    slope: Float[Tensor, "n"]
    """Growth of depth from pixel to pixel."""

    def candidates(self, piece: slice, total: int) -> tuple[Int64[Tensor, "m"], Int64[Tensor, "m"]]:
        """Return the `total` pixels that some of these rows cover, and the key of each.

        A key holds depth in its upper half and the face index in its lower: the smallest wins.
        """
        row, offset = expand_counts(self.num_pixels[piece], total)
        depth = self.depth[piece][row] + self.slope[piece][row] * offset
        bits = (depth + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # ordered as the floats are
        key = (bits.long() << 32) | self.face[piece][row]
        return self.first_pixel[piece][row] + offset, key


def _cut_into_rows(
    corners: Float64[Tensor, "n 3 3"],
    face: Int64[Tensor, "n"],
    rows: Int64[Tensor, "n 3"],
    total: int,
    width: int,
) -> _Rows:
    """Cut triangles into `total` rows of pixels whose centres lie inside.

    Args:
        rows: the first row that a triangle crosses, how many it crosses, and the rows of all items
            before its own.
    """
    first_row, num_rows, row_offset = rows.unbind(1)
    owner, offset = expand_counts(num_rows, total)
    row = first_row[owner] + offset
    y = row.double() + 0.5
    by_height = corners[..., 1].argsort(dim=1)
    corners = corners.gather(1, by_height[..., None].expand_as(corners))
    # What a row needs of its triangle, (10, n): then (10, rows).
    given = torch.stack([*corners.flatten(1).T[:5], *_slopes(corners)])[:, owner]
    x0, y0, z0, x1, y1, long, upper, lower, slope_x, slope_y = given
    long_edge = x0 + (y - y0) * long
    short_edge = torch.where(y < y1, x0 + (y - y0) * upper, x1 + (y - y1) * lower)
    left = _first_center(torch.minimum(long_edge, short_edge), width)
    right = _first_center(torch.maximum(long_edge, short_edge), width)
    depth = z0 + slope_x * (left.double() + 0.5 - x0) + slope_y * (y - y0)
    first_pixel = (row_offset[owner] + row) * width + left
    return _Rows(face[owner], first_pixel, right - left, depth.float(), slope_x.float())


def _slopes(corners: Float64[Tensor, "n 3 3"]) -> list[Float64[Tensor, "n"]]:
    """Return how x grows with y along three edges, and how depth grows with x and with y.

    Corners are sorted by y, and edges go from the upper to the lower one, so that both triangles
    that share an edge get the same bits: first the longest, then the upper and the lower one.
    """
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = corners.permute(1, 2, 0)
    edges = [(x2 - x0) / (y2 - y0), (x1 - x0) / (y1 - y0), (x2 - x1) / (y2 - y1)]
    (x1, y1, z1), (x2, y2, z2) = (corners[:, 1:] - corners[:, :1]).permute(1, 2, 0)
    area = x1 * y2 - x2 * y1
    return [*edges, (z1 * y2 - z2 * y1) / area, (x1 * z2 - x2 * z1) / area]


def _barycentric(
    point: Float[Tensor, "n 2"], corners: Float[Tensor, "n 3 2"]
) -> Float[Tensor, "n 3"]:
    """Weights of a triangle's corners at a point inside; rounding does not take them below 0."""
    (x0, y0), (x1, y1), (x2, y2) = (corners - point[:, None]).double().permute(1, 2, 0)
    areas = torch.stack([x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0], dim=1)
    weights = (areas / areas.sum(1, keepdim=True)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(point)


def expand_counts(
    counts: Int[Tensor, "n"], total: int | None = None
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """List the members of groups: each one's group, and its number within the group.

    Counts (2, 0, 3) give groups (0, 0, 2, 2, 2) and numbers (0, 1, 0, 1, 2). A GPU is asked for
    their sum, unless it is given as `total`.
    """
    ends = counts.cumsum(0)
    total = int(counts.sum()) if total is None else total
    group = torch.arange(len(counts), device=counts.device)
    group = group.repeat_interleave(counts, output_size=total)
    return group, torch.arange(total, device=counts.device) - (ends - counts)[group]


def _parts(counts: Int64[Tensor, "n"], limit: int) -> Iterator[tuple[slice, int]]:
    """Cut groups into parts of about `limit` members, or of one group; yield place and size."""
    ends = counts.cumsum(0)
    cuts, total = [[0, 0]], int(counts.sum())  # groups and members before each cut
    if total > limit:
        place = torch.searchsorted(ends, torch.arange(limit, total, limit, device=ends.device))
        cuts += torch.stack([place, F.pad(ends, (1, 0))[place]], dim=1).tolist()
    for (start, before), (stop, after) in pairwise([*cuts, [len(counts), total]]):
        if stop > start:
            yield slice(start, stop), after - before
