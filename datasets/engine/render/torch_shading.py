"""Lighting of people and surroundings in torch, on any device, for lists of n points.

Formulas, camera frame, colours and maps are those of `smpler.datasets.engine.render.numba_shading`.
`item` says to which of b pictures a point belongs.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from smpler.datasets.engine.render.constants import Constant
from smpler.datasets.engine.surfaces import (
    DETAIL_REPEATS,
    GROUND_REACH,
    HORIZON,
    INSIDE_COSINE,
    SHADOW_BIAS,
    SHININESS,
    SKY_RADIUS,
    SKY_SHARE,
    SUN_RADIUS,
    TEXTURE_TO_LINEAR,
)

Points = Float[Tensor, "n 3"]
_TO_LINEAR = Constant(TEXTURE_TO_LINEAR)


def polynomials(normals: Points) -> Float[Tensor, "n 9"]:
    """Return the spherical harmonics' polynomials: `engine.surfaces.sh_basis` in torch."""
    x, y, z = normals.unbind(1)
    terms = [torch.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    return torch.stack(terms, dim=1)


def transformed(matrices: Float[Tensor, "n 3 _"], points: Points) -> Points:
    """Apply to each point its own matrix (3, 3) or affine map (3, 4).

    Many small matrix products are slow on a GPU; this is a few passes over memory.
    """
    # (n, 3, 3) * (n, 1, 3), summed over columns -> (n, 3)
    moved = (matrices[..., :3] * points[:, None]).sum(dim=2)
    return moved + matrices[..., 3] if matrices.shape[2] == 4 else moved


def reached(
    points: Points,
    item: Int[Tensor, "n"],
    to_map: Float[Tensor, "b 3 4"],
    maps: Float[Tensor, "b s s"],
    radius: int,
) -> Float[Tensor, "n"]:
    """Return the share of a light that reaches points.

    It is the share of texels round a point's place in its shadow map that see nothing nearer.

    Args:
        points: camera frame.
        to_map: from there to the maps' pixels and depth.
        maps: depths.
        radius: texels on every side.
    """
    size, window = maps.shape[1], 2 * radius + 1
    place = transformed(to_map[item], points)
    # The maps get a frame, as wide as a window, in which nothing is near. A window that lies beyond
    # the frame is moved into it: it does not touch the map there either.
    framed = F.pad(maps, (window,) * 4, value=torch.inf)
    side = framed.shape[1]
    corner = place[:, :2].floor().long() + (window - radius)
    column, row = corner.clamp(0, size + window).unbind(1)
    first = (item * side + row) * side + column  # of the window's texels among all
    rows = framed.flatten().unfold(0, window, 1)  # (texel, window): it and those on its right
    depth = (place[:, 2] - float(SHADOW_BIAS))[:, None]
    shaded = torch.zeros_like(first)
    for i in range(window):
        shaded += (rows[first + i * side] < depth).sum(dim=1)
    return 1 - shaded.to(points.dtype) / window**2


def texels(
    textures: UInt8[Tensor, "t h w c"], texture: Int[Tensor, "n"], u: Tensor, v: Tensor
) -> Points:
    """Sample repeating textures bilinearly, in linear light."""
    height, width = textures.shape[1:3]
    return _bilinear(textures, texture, u * width - 0.5, v * height - 0.5, repeats=True)


def _bilinear(
    images: UInt8[Tensor, "t h w c"],
    number: Int[Tensor, "n"],
    x: Float[Tensor, "n"],
    y: Float[Tensor, "n"],
    repeats: bool,
) -> Points:
    """Sample images bilinearly, in linear light; columns repeat.

    Args:
        number: image of each sample.
        x, y: place in pixels, (0, 0) is the first one's centre.
        repeats: rows repeat too; else the last one is repeated.
    """
    height, width = images.shape[1:3]
    linear = _TO_LINEAR.on(images.device)
    row, column = y.floor().long(), x.floor().long() % width
    fx, fy = (x - x.floor())[:, None], (y - y.floor())[:, None]
    below = (row + 1) % height if repeats else (row + 1).clamp(max=height - 1)
    row, right = row % height if repeats else row, (column + 1) % width

    def at(r: Tensor, c: Tensor) -> Points:
        return linear[images[number, r, c, :3].int()]

    top = (1 - fx) * at(row, column) + fx * at(row, right)
    bottom = (1 - fx) * at(below, column) + fx * at(below, right)
    return (1 - fy) * top + fy * bottom


def shade(
    points: Points,
    normals: Points,
    albedo: Points,
    highlight: Float[Tensor, "n"],
    two_sided: Bool[Tensor, "n"],
    item: Int[Tensor, "n"],
    light: dict[str, Tensor],
) -> Points:
    """Return the light that points of surfaces send to the camera.

    Args:
        points: camera frame.
        normals: of any length.
        albedo: share of each colour that a matt surface reflects.
        highlight: its strength.
        two_sided: whether the inside may be seen, and is lit then.
        light: of each picture: sh (b, 9, 3), sun (b, 3), sun_color (b, 3); to_sun, to_sky
            (b, 3, 4) and the shadow maps sun_map, sky_map (b, s, s).
    """
    normals = normals / (normals.norm(dim=1, keepdim=True) + 1e-12)
    away = points.norm(dim=1)
    inside = two_sided & ((normals * points).sum(1) > float(INSIDE_COSINE) * away)
    normals = torch.where(inside[:, None], -normals, normals)
    sun, sun_color = light["sun"][item], light["sun_color"][item]
    towards = (normals * sun).sum(1)
    lifted = points + float(SHADOW_BIAS) * normals  # so that surfaces do not shade themselves
    sunlit = reached(lifted, item, light["to_sun"], light["sun_map"], SUN_RADIUS)
    sunlit = torch.where(towards > 0, sunlit, 0)
    sky = reached(lifted, item, light["to_sky"], light["sky_map"], SKY_RADIUS)
    ambient = 1 - float(SKY_SHARE) * (1 - sky)
    half = sun - points / away[:, None]  # halfway between sun and camera, of any length
    half = (normals * half).sum(1) / half.pow(2).sum(1).add(1e-12).sqrt()
    gloss = highlight * sunlit * half.clamp(min=0) ** SHININESS
    # (n, 9, 1) * (n, 9, 3), summed over the polynomials -> (n, 3)
    irradiance = (polynomials(normals)[..., None] * light["sh"][item]).sum(dim=1).clamp(min=0)
    received = ambient[:, None] * irradiance
    received = received + (towards.clamp(min=0) * sunlit)[:, None] * sun_color
    return albedo.clamp(min=0) * received + gloss[:, None] * sun_color


def backdrop(
    panoramas: UInt8[Tensor, "p h w 3"],
    white: Float[Tensor, "p"],
    pattern: Float[Tensor, "s s"],
    scenes: dict[str, Tensor],
    light: dict[str, Tensor],
    covered: Bool[Tensor, "b s s"],
) -> Float[Tensor, "b s s 3"]:
    """Paint the surroundings, and on the ground the shadow of everything.

    Args:
        pattern: fine detail, see `numba_shading.backdrop`.
        scenes: panorama (b,), to_panorama (b, 3, 3), focal (b, 2), center (b, 2), ground (b, 4),
            shade (b, 3), detail (b,).
        light: as of `shade`.
        covered: pixels in which no surroundings are seen; they stay black.
    """
    size, device = covered.shape[1], white.device
    pixel = torch.arange(size, device=device) + 0.5
    y, x = torch.meshgrid(pixel, pixel, indexing="ij")
    place = torch.stack([x, y], dim=-1).flatten(0, 1)  # (size * size, 2)
    offset = place - scenes["center"][:, None]  # (b, size * size, 2)
    ones = torch.ones_like(offset[..., :1])
    view = torch.cat([offset / scenes["focal"][:, 1:, None], ones], dim=2)
    direction = (view @ scenes["to_panorama"].transpose(1, 2)).flatten(0, 1)
    ray = torch.cat([offset / scenes["focal"][:, :1, None], ones], dim=2).flatten(0, 1)
    # From here on one point for each pixel of the batch that shows surroundings.
    shown = (~covered.flatten()).nonzero()[:, 0]
    direction, ray, item = direction[shown], ray[shown], shown // size**2
    number = scenes["panorama"][item]
    color = _seen_in(panoramas, number, direction, pattern, scenes["detail"][item])
    ground = scenes["ground"][item]
    slope = (ground[:, :3] * ray).sum(1)
    z = ground[:, 3] / torch.where(slope.abs() > float(HORIZON), slope, torch.nan)
    hit = ((z > 0) & (z < float(GROUND_REACH))).nonzero()[:, 0]
    point, item = ray[hit] * z[hit, None], item[hit]
    dark = [
        1 - reached(point, item, light[to], light[maps], radius)[:, None]
        for to, maps, radius in (
            ("to_sun", "sun_map", SUN_RADIUS),
            ("to_sky", "sky_map", SKY_RADIUS),
        )
    ]
    share = scenes["shade"][item]
    left = 1 - dark[0] * share - dark[1] * float(SKY_SHARE) * (1 - share)
    left = torch.ones_like(color).index_copy(0, hit, left)
    picture = color.new_zeros(covered.numel(), 3)
    picture = picture.index_copy(0, shown, white[number, None] * color * left)
    return picture.view(*covered.shape, 3)


def _seen_in(
    panoramas: UInt8[Tensor, "p h w 3"],
    number: Int[Tensor, "n"],
    direction: Points,
    pattern: Float[Tensor, "s s"],
    detail: Float[Tensor, "n"],
) -> Points:
    """Return the colour of panoramas in some directions, relative to their white.

    Args:
        number: panorama of each direction.
        direction: in the panorama's frame, of any length.
        detail: strength of the pattern.
    """
    height, width = panoramas.shape[1:3]
    ex, ey, ez = direction.unbind(1)
    u = torch.atan2(ex, ez) / (2 * torch.pi) + 0.5
    v = torch.atan2(torch.hypot(ex, ez), ey) / torch.pi
    repeats = DETAIL_REPEATS * len(pattern)
    row, column = (v * repeats).long() % len(pattern), (u * 2 * repeats).long() % len(pattern)
    grain = 1 + detail * pattern[row, column]
    x, y = u * width - 0.5, (v * height - 0.5).clamp(0, height - 1)
    return grain[:, None] * _bilinear(panoramas, number, x, y, repeats=False)
