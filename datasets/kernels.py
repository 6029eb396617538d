"""Posing, rasterising and shading on one CPU core, compiled by numba.

The data engine's fast path; `datasets.torch_renderer` does the same in torch, batched, on any
device, and runs where numba is absent. Only import this module when it is used: numba costs a
second.

Camera frame: metres, x right, y down, z away. Pixels: x right, y down, the top-left corner is
(0, 0), so that the pixel in row i and column j has its centre at (j + 0.5, i + 0.5). Faces wind
counter-clockwise seen from outside. Colours are linear light unless a name says otherwise.
"""

import numba
import numpy as np

from datasets.surfaces import (
    DETAIL_REPEATS,
    GROUND_REACH,
    NEAREST,
    SHADOW_BIAS,
    SHININESS,
    SKY_RADIUS,
    SKY_SHARE,
    SUN_RADIUS,
    TEXTURE_TO_LINEAR,
    TRANSPARENT,
)

ONE, HALF = np.float32(1), np.float32(0.5)
_COMPILE = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@numba.njit(**_COMPILE)
def pose_vertices(
    v_template,
    shapedirs,
    lbs_indices,
    lbs_weights,
    anchor,
    correctives,
    betas,
    feature,
    transforms,
):
    """Blend shapes, pose correctives and skinning of one layer (SMPL, eq. 2 to 9).

    Args:
        v_template: (n, 3).
        shapedirs: (n, 3, 10).
        lbs_indices: (n, 4) joints.
        lbs_weights: (n, 4).
        anchor: (n,) body vertex whose pose correctives this vertex borrows; -1: none.
        correctives: of the body, sparse: first (v + 1,), joint (k,) counted from 0 for the first
            after the root, value (k, 3, 9).
        betas: (10,).
        feature: (23, 9) rotations minus identity.
        transforms: (24, 3, 4) from the shaped rest pose to the posed frame.

    Returns:
        (n, 3).
    """
    first, joint, value = correctives
    posed = np.zeros_like(v_template)
    rest = np.zeros(3, np.float32)
    for i in range(len(v_template)):
        for c in range(3):
            rest[c] = v_template[i, c]
            for k in range(len(betas)):
                rest[c] += shapedirs[i, c, k] * betas[k]
        if anchor[i] >= 0:
            for b in range(first[anchor[i]], first[anchor[i] + 1]):
                for c in range(3):
                    for e in range(9):
                        rest[c] += value[b, c, e] * feature[joint[b], e]
        for k in range(4):
            w, j = lbs_weights[i, k], lbs_indices[i, k]
            for c in range(3):
                posed[i, c] += w * (
                    transforms[j, c, 0] * rest[0]
                    + transforms[j, c, 1] * rest[1]
                    + transforms[j, c, 2] * rest[2]
                    + transforms[j, c, 3]
                )
    return posed


@numba.njit(**_COMPILE)
def vertex_normals(vertices, faces):
    """Unit normals (n, 3) that point outwards: mean of the adjacent faces' normals, by area."""
    normals = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, vx = vertices[b, 0] - vertices[a, 0], vertices[c, 0] - vertices[a, 0]
        uy, vy = vertices[b, 1] - vertices[a, 1], vertices[c, 1] - vertices[a, 1]
        uz, vz = vertices[b, 2] - vertices[a, 2], vertices[c, 2] - vertices[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            normals[i, 0] += x
            normals[i, 1] += y
            normals[i, 2] += z
    for i in range(len(normals)):
        x, y, z = normals[i, 0], normals[i, 1], normals[i, 2]
        scale = np.float32(1) / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-12))
        for c in range(3):
            normals[i, c] *= scale
    return normals


@numba.njit(**_COMPILE)
def project(vertices, focal, center):
    """Return pixels and depth (n, 3) of points in the camera frame; focal length in pixels."""
    points = np.empty_like(vertices)
    for i in range(len(vertices)):
        z = vertices[i, 2]
        points[i, 0] = center[0] + focal * vertices[i, 0] / z
        points[i, 1] = center[1] + focal * vertices[i, 1] / z
        points[i, 2] = z
    return points


@numba.njit(**_COMPILE)
def _first_center(place, size):
    """Index of the first pixel, of so many, whose centre is at this place or after it."""
    return int(min(max(np.ceil(place - np.float32(0.5)), 0), size))


@numba.njit(**_COMPILE)
def rasterize(points, faces, materials, surfaces, size):
    """Find the nearest triangle at every pixel's centre, perspective-correct.

    Args:
        points: (n, 3) pixels and depth.
        faces: (f, 3).
        materials: (f,) material of each face.
        surfaces: uv (f, 3, 2); textures (t, s, s, 4) uint8; texture, cull and tested of each
            material: tested surfaces have holes where the texture is transparent.
        size: height and width of the picture.

    Returns:
        The face (size, size) int32, -1 where there is nothing; the first two barycentric weights
        on it (size, size, 2), perspective-correct; 1 / depth (size, size), 0 where nothing.
    """
    uv, textures, texture, cull, tested = surfaces
    texels = textures.shape[1]
    nearest = np.full((size, size), -1, np.int32)
    barycentric = np.zeros((size, size, 2), np.float32)
    inverse_depth = np.zeros((size, size), np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if min(points[a, 2], points[b, 2], points[c, 2]) < NEAREST:
            continue
        x0, x1, x2 = points[a, 0], points[b, 0], points[c, 0]
        y0, y1, y2 = points[a, 1], points[b, 1], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        m = materials[f]
        if area == 0 or (area > 0 and cull[m]):  # y points down: negative faces the camera
            continue
        left, right = _first_center(min(x0, x1, x2), size), _first_center(max(x0, x1, x2), size)
        top, bottom = _first_center(min(y0, y1, y2), size), _first_center(max(y0, y1, y2), size)
        if left >= right or top >= bottom:
            continue
        q0, q1, q2 = 1 / points[a, 2], 1 / points[b, 2], 1 / points[c, 2]
        inverse_area = 1 / area
        step0, step1 = (y1 - y2) * inverse_area, (y2 - y0) * inverse_area
        for row in range(top, bottom):
            y, x = np.float32(row + 0.5), np.float32(left + 0.5)
            base0 = ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) * inverse_area
            base1 = ((x0 - x2) * (y - y2) - (x - x2) * (y0 - y2)) * inverse_area
            for column in range(left, right):
                w0 = base0 + np.float32(column - left) * step0
                w1 = base1 + np.float32(column - left) * step1
                w2 = 1 - w0 - w1
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                q = w0 * q0 + w1 * q1 + w2 * q2
                if q <= inverse_depth[row, column]:
                    continue
                b0, b1 = w0 * q0 / q, w1 * q1 / q
                if tested[m]:
                    b2 = 1 - b0 - b1
                    u = b0 * uv[f, 0, 0] + b1 * uv[f, 1, 0] + b2 * uv[f, 2, 0]
                    v = b0 * uv[f, 0, 1] + b1 * uv[f, 1, 1] + b2 * uv[f, 2, 1]
                    i, j = int(v * texels) % texels, int(u * texels) % texels
                    if textures[texture[m], i, j, 3] < TRANSPARENT:
                        continue
                inverse_depth[row, column], nearest[row, column] = q, f
                barycentric[row, column, 0], barycentric[row, column, 1] = b0, b1
    return nearest, barycentric, inverse_depth


@numba.njit(**_COMPILE)
def depth_map(points, faces, size):
    """Smallest depth (size, size) at every pixel's centre, orthographic; infinite where nothing.

    Args:
        points: (n, 3) pixels and depth.
    """
    depth = np.full((size, size), np.inf, np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, x1, x2 = points[a, 0], points[b, 0], points[c, 0]
        y0, y1, y2 = points[a, 1], points[b, 1], points[c, 1]
        left, right = _first_center(min(x0, x1, x2), size), _first_center(max(x0, x1, x2), size)
        top, bottom = _first_center(min(y0, y1, y2), size), _first_center(max(y0, y1, y2), size)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if left >= right or top >= bottom or area == 0:
            continue
        inverse_area = 1 / area
        for row in range(top, bottom):
            for column in range(left, right):
                x, y = np.float32(column + 0.5), np.float32(row + 0.5)
                w0 = ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) * inverse_area
                w1 = ((x0 - x2) * (y - y2) - (x - x2) * (y0 - y2)) * inverse_area
                w2 = 1 - w0 - w1
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    z = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2]
                    depth[row, column] = min(depth[row, column], z)
    return depth


@numba.njit(**_COMPILE)
def _reached(x, y, z, to_map, shadow_map, radius):
    """Share of a light that reaches a point: of the texels round its place in the shadow map."""
    size = len(shadow_map)
    j = int(np.floor(to_map[0, 0] * x + to_map[0, 1] * y + to_map[0, 2] * z + to_map[0, 3]))
    i = int(np.floor(to_map[1, 0] * x + to_map[1, 1] * y + to_map[1, 2] * z + to_map[1, 3]))
    depth = to_map[2, 0] * x + to_map[2, 1] * y + to_map[2, 2] * z + to_map[2, 3] - SHADOW_BIAS
    shaded = 0
    for row in range(max(i - radius, 0), min(i + radius + 1, size)):
        for column in range(max(j - radius, 0), min(j + radius + 1, size)):
            shaded += shadow_map[row, column] < depth
    return ONE - np.float32(shaded) / np.float32((2 * radius + 1) ** 2)


@numba.njit(**_COMPILE)
def _irradiance(sh, channel, x, y, z):
    """Ambient light from a direction's hemisphere: a polynomial of the normal, not negative."""
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


@numba.njit(**_COMPILE)
def _texel(textures, texture, u, v):
    """Bilinear sample of a repeating texture: red, green, blue in linear light."""
    size = textures.shape[1]
    x, y = u * size - np.float32(0.5), v * size - np.float32(0.5)
    j, i = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - j), np.float32(y - i)
    i0, i1, j0, j1 = i % size, (i + 1) % size, j % size, (j + 1) % size
    w00, w01 = (ONE - fx) * (ONE - fy), fx * (ONE - fy)
    w10, w11 = (ONE - fx) * fy, fx * fy
    image = textures[texture]
    return (
        _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, 0),
        _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, 1),
        _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, 2),
    )


@numba.njit(**_COMPILE)
def _blend(image, i0, i1, j0, j1, w00, w01, w10, w11, channel):
    """Weighted linear light of four texels."""
    return (
        w00 * TEXTURE_TO_LINEAR[image[i0, j0, channel]]
        + w01 * TEXTURE_TO_LINEAR[image[i0, j1, channel]]
        + w10 * TEXTURE_TO_LINEAR[image[i1, j0, channel]]
        + w11 * TEXTURE_TO_LINEAR[image[i1, j1, channel]]
    )


@numba.njit(**_COMPILE)
def shade(fragments, geometry, materials, surfaces, looks, light, shadows, samples):
    """Light what every sample sees and average it over the picture's pixels.

    Args:
        fragments: what `rasterize` returns.
        geometry: vertices and normals (n, 3), faces (f, 3), body part of each face (f,).
        materials: (f,) material of each face.
        surfaces: as `rasterize` takes them.
        looks: of each material: colour matrix (m, 3, 3) on the texture's linear light, strength of
            the highlight (m,), actor (m,): 0 is the subject.
        light: sh (9, 3) of `_irradiance`, direction to the sun (3,), the sun's colour (3,).
        shadows: of the sun, then of the sky above: (3, 4) from the camera frame to pixels and depth
            of a map (s, s), what `depth_map` returns.
        samples: per pixel, along each axis.

    Returns:
        Colour (h, w, 3) times coverage; coverage of everything, and of the subject (h, w); depth
        of the subject's nearest sample (h, w), infinite where there is none, and its body part
        (h, w) uint8, 0 where there is none.
    """
    face_index, barycentric, inverse_depth = fragments
    vertices, normals, faces, part = geometry
    uv, textures, texture, cull, _ = surfaces
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
                    parts[i, j] = part[f]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb = barycentric[row, column, 0], barycentric[row, column, 1]
            wc = 1 - wa - wb
            nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            px = wa * vertices[a, 0] + wb * vertices[b, 0] + wc * vertices[c, 0]
            py = wa * vertices[a, 1] + wb * vertices[b, 1] + wc * vertices[c, 1]
            pz = wa * vertices[a, 2] + wb * vertices[b, 2] + wc * vertices[c, 2]
            u = wa * uv[f, 0, 0] + wb * uv[f, 1, 0] + wc * uv[f, 2, 0]
            v = wa * uv[f, 0, 1] + wb * uv[f, 1, 1] + wc * uv[f, 2, 1]
            scale = 1 / (np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-12))
            away = np.sqrt(px * px + py * py + pz * pz)
            if not cull[m] and (nx * px + ny * py + nz * pz) * scale > np.float32(0.2) * away:
                scale = -scale  # the inside of a garment
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            towards = nx * sun[0] + ny * sun[1] + nz * sun[2]
            ox, oy, oz = px + SHADOW_BIAS * nx, py + SHADOW_BIAS * ny, pz + SHADOW_BIAS * nz
            sunlit = np.float32(0)
            if towards > 0:
                sunlit = _reached(ox, oy, oz, to_map, shadow_map, SUN_RADIUS)
            sky = _reached(ox, oy, oz, to_sky, sky_map, SKY_RADIUS)
            ambient = ONE - SKY_SHARE * (ONE - sky)
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


@numba.njit(**_COMPILE)
def backdrop(encoded, to_panorama, focal, center, ground, shadows, shade_share, detail, size):
    """Paint the surroundings, and on the ground the shadow of everything.

    Args:
        encoded: panorama (h, w, 3) uint8 sRGB, equirectangular: columns are the angle from +z
            towards +x from -pi to pi, rows that from +y from 0 to pi; and the light of its white.
        to_panorama: (3, 3) from the camera's axes to the panorama's (y up).
        focal: of the scene, and of the surroundings, which may be seen wider: px.
        center: (2,) principal point, px.
        ground: (4,) unit normal in the camera frame (it points up), and n . x of its points.
        shadows: as `shade` takes them.
        shade_share: (3,) share of each colour's light on the ground that is the sun's.
        detail: strength, and a pattern (s, s) in [-1, 1] that repeats: what the panorama is too
            coarse to show.
        size: height and width, px.
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
            ex = to_panorama[0, 0] * dx + to_panorama[0, 1] * dy + to_panorama[0, 2]
            ey = to_panorama[1, 0] * dx + to_panorama[1, 1] * dy + to_panorama[1, 2]
            ez = to_panorama[2, 0] * dx + to_panorama[2, 1] * dy + to_panorama[2, 2]
            level = np.sqrt(ex * ex + ez * ez)
            u = np.arctan2(ex, ez) / np.float32(2 * np.pi) + HALF
            v = np.arctan2(level, ey) / np.float32(np.pi)
            j, i = int(u * columns) % pattern_size, int(v * rows) % pattern_size
            grain = white * (ONE + strength * pattern[i, j])
            u, v = u * width - HALF, min(max(v * height - HALF, np.float32(0)), height - ONE)
            j, i = int(np.floor(u)), int(v)
            fu, fv = np.float32(u - j), np.float32(v - i)
            i1, j0, j1 = min(i + 1, height - 1), j % width, (j + 1) % width
            w00, w01 = (ONE - fu) * (ONE - fv), fu * (ONE - fv)
            w10, w11 = (ONE - fu) * fv, fu * fv
            dx, dy = x / focal[0], y / focal[0]
            slope = ground[0] * dx + ground[1] * dy + ground[2]
            sun_dark, sky_dark = np.float32(0), np.float32(0)
            if abs(slope) > np.float32(1e-4):
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
