"""Lighting of people and surroundings on one CPU core, compiled by numba.

Frames, pixels and colours are those of `smpler.datasets.engine.render.numba_geometry`, and so is
the advice on importing. `smpler.datasets.engine.render.torch_shading` does the same in torch.
"""

import numpy as np

from smpler.datasets.engine.render.numba_compile import compiled
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

ONE, HALF = np.float32(1), np.float32(0.5)


@compiled
def _reached(x, y, z, to_map, shadow_map, radius):
    """Return the share of a light that reaches a point.

    It is the share of texels round the point's place in the shadow map that see nothing nearer.

    Args:
        x, y, z: the point.
        to_map: (3, 4) from the camera frame to the map's pixels and depth.
        shadow_map: (s, s) depths.
        radius: texels on every side.
    """
    size = len(shadow_map)
    j = int(np.floor(to_map[0, 0] * x + to_map[0, 1] * y + to_map[0, 2] * z + to_map[0, 3]))
    i = int(np.floor(to_map[1, 0] * x + to_map[1, 1] * y + to_map[1, 2] * z + to_map[1, 3]))
    depth = to_map[2, 0] * x + to_map[2, 1] * y + to_map[2, 2] * z + to_map[2, 3] - SHADOW_BIAS
    shaded = 0
    for row in range(max(i - radius, 0), min(i + radius + 1, size)):
        for column in range(max(j - radius, 0), min(j + radius + 1, size)):
            shaded += shadow_map[row, column] < depth
    return ONE - np.float32(shaded) / np.float32((2 * radius + 1) ** 2)


@compiled
def _irradiance(sh, channel, x, y, z):
    """Return the ambient light (of sh (9, 3), one channel) on a surface of normal x, y, z."""
    return max(
        np.float32(0),
        sh[0, channel]
        + sh[1, channel] * y
        + sh[2, channel] * z
        + sh[3, channel] * x
        + sh[4, channel] * x * y
        + sh[5, channel] * y * z
        + sh[6, channel] * (3 * z * z - 1)
        + sh[7, channel] * x * z
        + sh[8, channel] * (x * x - y * y),
    )


@compiled
def _texel(textures, texture, u, v):
    """Sample a repeating texture of (t, s, s, 4) bilinearly: red, green, blue in linear light."""
    size = textures.shape[1]
    x, y = u * size - np.float32(0.5), v * size - np.float32(0.5)
    j, i = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - j), np.float32(y - i)
    last = size - 1  # the size is a power of two
    i0, i1, j0, j1 = i & last, (i + 1) & last, j & last, (j + 1) & last
    w00, w01 = (ONE - fx) * (ONE - fy), fx * (ONE - fy)
    w10, w11 = (ONE - fx) * fy, fx * fy
    image = textures[texture]
    return (
        _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, 0),
        _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, 1),
        _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, 2),
    )


@compiled
def _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, channel):
    """Return the weighted linear light of four texels of an image (h, w, 3 or 4)."""
    return (
        w00 * TEXTURE_TO_LINEAR[image[i0, j0, channel]]
        + w01 * TEXTURE_TO_LINEAR[image[i0, j1, channel]]
        + w10 * TEXTURE_TO_LINEAR[image[i1, j0, channel]]
        + w11 * TEXTURE_TO_LINEAR[image[i1, j1, channel]]
    )


@compiled
def shade(fragments, geometry, materials, surfaces, looks, light, shadows, samples):
    """Light what every sample sees and average it over the picture's pixels.

    Sizes: n vertices, f faces and m materials of the scene, l faces of the layers, and (h, w)
    pixels of the picture.

    Args:
        fragments: what `rasterize` returns, (h * samples, w * samples).
        geometry: vertices and normals (n, 3), faces (f, 3), body part of the layers' faces (l,).
        materials: (f,) material of each face.
        surfaces: as `rasterize` takes them.
        looks: of each material: the colour matrix (m, 3, 3) that the texture's linear light is
            multiplied by, the strength of the highlight (m,), the actor (m,): 0 is the subject.
        light: sh (9, 3) of `_irradiance`, direction to the sun (3,), the sun's colour (3,).
        shadows: of the sun, then of the sky above: the affine map (3, 4) from the camera frame to
            pixels and depth, and the depths (s, s) that `depth_map` returns.
        samples: per pixel, along each axis.

    Returns:
        Colour (h, w, 3) times coverage; coverage of everything, and of the subject (h, w); depth
        of the subject's nearest sample (h, w), infinite where there is none, and its body part
        (h, w) uint8, 0 where there is none.
    """
    face_index, barycentric, inverse_depth = fragments
    vertices, normals, faces, part = geometry
    source, uv, textures, texture, cull, _ = surfaces
    matrices, highlight, actor = looks
    sh, sun, sun_color = light
    to_map, shadow_map, to_sky, sky_map = shadows
    size = len(face_index) // samples
    share = np.float32(1 / samples**2)
    color = np.zeros((size, size, 3), np.float32)
    coverage, mask = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    depth = np.full((size, size), np.inf, np.float32)
    parts = np.zeros((size, size), np.uint8)
    for row in range(size * samples):
        for column in range(size * samples):
            f = face_index[row, column]
            if f < 0:
                continue
            i, j, m = row // samples, column // samples, materials[f]
            coverage[i, j] += share
            if actor[m] == 0:
                mask[i, j] += share
                if 1 / inverse_depth[row, column] < depth[i, j]:
                    depth[i, j] = 1 / inverse_depth[row, column]
                    parts[i, j] = part[source[f]]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb = barycentric[row, column, 0], barycentric[row, column, 1]
            wc = 1 - wa - wb
            nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            px = wa * vertices[a, 0] + wb * vertices[b, 0] + wc * vertices[c, 0]
            py = wa * vertices[a, 1] + wb * vertices[b, 1] + wc * vertices[c, 1]
            pz = wa * vertices[a, 2] + wb * vertices[b, 2] + wc * vertices[c, 2]
            s = source[f]
            u = wa * uv[s, 0, 0] + wb * uv[s, 1, 0] + wc * uv[s, 2, 0]
            v = wa * uv[s, 0, 1] + wb * uv[s, 1, 1] + wc * uv[s, 2, 1]
            scale = 1 / (np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-12))
            away = np.sqrt(px * px + py * py + pz * pz)
            if not cull[m] and (nx * px + ny * py + nz * pz) * scale > INSIDE_COSINE * away:
                scale = -scale  # the inside of a garment
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            towards = nx * sun[0] + ny * sun[1] + nz * sun[2]
            # lifted off the surface, so that it does not shade itself
            ox, oy, oz = px + SHADOW_BIAS * nx, py + SHADOW_BIAS * ny, pz + SHADOW_BIAS * nz
            sunlit = np.float32(0)
            if towards > 0:
                sunlit = _reached(ox, oy, oz, to_map, shadow_map, SUN_RADIUS)
            sky = _reached(ox, oy, oz, to_sky, sky_map, SKY_RADIUS)
            ambient = ONE - SKY_SHARE * (ONE - sky)
            # halfway between the directions to the sun and to the camera
            hx, hy, hz = sun[0] - px / away, sun[1] - py / away, sun[2] - pz / away
            half = (nx * hx + ny * hy + nz * hz) / np.sqrt(
                hx * hx + hy * hy + hz * hz + np.float32(1e-12)
            )
            gloss = np.float32(0)
            if half > 0:
                gloss = highlight[m] * sunlit * half**SHININESS
            albedo = _texel(textures, texture[m], u, v)
            for k in range(3):
                mixed = (
                    matrices[m, k, 0] * albedo[0]
                    + matrices[m, k, 1] * albedo[1]
                    + matrices[m, k, 2] * albedo[2]
                )
                received = ambient * _irradiance(sh, k, nx, ny, nz)
                received += max(towards, np.float32(0)) * sunlit * sun_color[k]
                mixed = max(mixed, np.float32(0)) * received + gloss * sun_color[k]
                color[i, j, k] += share * mixed
    return color, coverage, mask, depth, parts


@compiled
def backdrop(encoded, to_panorama, focal, center, ground, shadows, shade_share, detail, size):
    """Paint the surroundings, and on the ground the shadow of everything.

    Args:
        encoded: panorama (h, w, 3) uint8 sRGB, equirectangular, and the light of its white.
            Columns are the angle from +z towards +x, from -pi to pi; rows that from +y, 0 to pi.
        to_panorama: (3, 3) from the camera's axes to the panorama's (y up).
        focal: (2,) of the scene, and of the surroundings, which may be seen wider; px.
        center: (2,) principal point, px.
        ground: (4,) unit normal n in the camera frame (it points up), n . x of its points x.
        shadows: as `shade` takes them.
        shade_share: (3,) share of each colour's light on the ground that is the sun's.
        detail: strength, and a pattern (s, s) in [-1, 1] that repeats: it adds the detail that
            the panorama is too coarse to show.
        size: height and width, px.

    Returns:
        (size, size, 3).
    """
    to_map, shadow_map, to_sky, sky_map = shadows
    (panorama, white), (strength, pattern) = encoded, detail
    height, width = panorama.shape[:2]
    pattern_size = len(pattern)
    rows, columns = DETAIL_REPEATS * pattern_size, 2 * DETAIL_REPEATS * pattern_size
    image = np.empty((size, size, 3), np.float32)
    for row in range(size):
        for column in range(size):
            x, y = np.float32(column + 0.5) - center[0], np.float32(row + 0.5) - center[1]
            dx, dy = x / focal[1], y / focal[1]
            # direction from the camera, in the panorama's frame
            ex = to_panorama[0, 0] * dx + to_panorama[0, 1] * dy + to_panorama[0, 2]
            ey = to_panorama[1, 0] * dx + to_panorama[1, 1] * dy + to_panorama[1, 2]
            ez = to_panorama[2, 0] * dx + to_panorama[2, 1] * dy + to_panorama[2, 2]
            level = np.sqrt(ex * ex + ez * ez)
            u = np.arctan2(ex, ez) / np.float32(2 * np.pi) + HALF
            v = np.arctan2(level, ey) / np.float32(np.pi)
            j, i = int(u * columns) & (pattern_size - 1), int(v * rows) & (pattern_size - 1)
            grain = white * (ONE + strength * pattern[i, j])
            u, v = u * width - HALF, min(max(v * height - HALF, np.float32(0)), height - ONE)
            j, i = int(np.floor(u)), int(v)
            fu, fv = np.float32(u - j), np.float32(v - i)
            i1, j0 = min(i + 1, height - 1), j + width if j < 0 else j
            j1 = j0 + 1 if j0 + 1 < width else 0
            w00, w01 = (ONE - fu) * (ONE - fv), fu * (ONE - fv)
            w10, w11 = (ONE - fu) * fv, fu * fv
            # where the same pixel's ray, at the scene's focal length, meets the ground
            dx, dy = x / focal[0], y / focal[0]
            slope = ground[0] * dx + ground[1] * dy + ground[2]
            sun_dark, sky_dark = np.float32(0), np.float32(0)
            if abs(slope) > HORIZON:
                z = ground[3] / slope
                if 0 < z < GROUND_REACH:
                    sun_dark = ONE - _reached(dx * z, dy * z, z, to_map, shadow_map, SUN_RADIUS)
                    sky_dark = ONE - _reached(dx * z, dy * z, z, to_sky, sky_map, SKY_RADIUS)
            for k in range(3):
                light = grain * _blend(panorama, i, i1, j0, j1, w00, w01, w10, w11, k)
                sky_share = SKY_SHARE * (ONE - shade_share[k])
                image[row, column, k] = light * (
                    ONE - sun_dark * shade_share[k] - sky_dark * sky_share
                )
    return image
