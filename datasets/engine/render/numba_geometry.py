"""Posing and rasterising on one CPU core, compiled by numba.

The data engine's fast path; `smpler.datasets.engine.render.torch_renderer` does the same in torch,
batched, on any device, and runs where numba is absent. Import this module only when it is used:
importing numba takes a second.

Camera frame: metres, x right, y down, z away. Pixels: x right, y down, the top-left corner is
(0, 0), so that the pixel in row i and column j has its centre at (j + 0.5, i + 0.5). Faces wind
counter-clockwise seen from outside. Colours are linear light unless a name says otherwise.
"""

import numpy as np

from smpler.datasets.engine.render.numba_compile import compiled
from smpler.datasets.engine.surfaces import NEAREST, TRANSPARENT


@compiled
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
        v_template: (n, 3), n vertices of the layer.
        shapedirs: (n, 3, 10).
        lbs_indices: (n, 4) joints.
        lbs_weights: (n, 4).
        anchor: (n,) body vertex whose pose correctives this vertex borrows; -1: none.
        correctives: of the body's v vertices, what `layers.sparse_correctives` returns: first
            (v + 1,), joint (k,), value (k, 3, 9).
        betas: (10,).
        feature: (23, 9) rotations minus identity.
        transforms: (24, 3, 4) from the shaped rest pose to the posed frame.

    Returns:
        (n, 3) posed vertices.
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


@compiled
def vertex_normals(vertices, faces):
    """Return unit normals (n, 3) outwards: adjacent faces' mean normals, weighted by area."""
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


@compiled
def project(vertices, focal, center):
    """Return pixels and depth (n, 3) of points (n, 3) in the camera frame; focal in pixels."""
    points = np.empty_like(vertices)
    for i in range(len(vertices)):
        z = vertices[i, 2]
        points[i, 0] = center[0] + focal * vertices[i, 0] / z
        points[i, 1] = center[1] + focal * vertices[i, 1] / z
        points[i, 2] = z
    return points


@compiled
def _first_center(place, size):
    """Return the first of `size` pixels whose centre is not before a place, or `size`."""
    return int(min(max(np.ceil(place - np.float32(0.5)), 0), size))


@compiled
def rasterize(points, faces, materials, surfaces, size):
    """Find the nearest triangle at every pixel's centre, perspective-correct.

    Args:
        points: (n, 3) pixels and depth.
        faces: (f, 3).
        materials: (f,) material of each face.
        surfaces: each face's number in the layers (f,); uv of the layers' faces (l, 3, 2);
            textures (t, s, s, 4) uint8; and of each material (m,): its texture, whether it is
            culled, and whether it is tested. Tested surfaces have holes where the texture is
            transparent.
        size: height and width of the picture.

    Returns:
        The face (size, size) int32, -1 where there is nothing; the first two barycentric weights
        on it (size, size, 2), perspective-correct; 1 / depth (size, size), 0 where there is
        nothing.
    """
    source, uv, textures, texture, cull, tested = surfaces
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
        step0, step1 = (y1 - y2) * inverse_area, (y2 - y0) * inverse_area  # from pixel to pixel
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
                q = w0 * q0 + w1 * q1 + w2 * q2  # 1 / depth is linear in the picture
                if q <= inverse_depth[row, column]:
                    continue
                b0, b1 = w0 * q0 / q, w1 * q1 / q
                if tested[m]:
                    b2 = 1 - b0 - b1
                    s = source[f]
                    u = b0 * uv[s, 0, 0] + b1 * uv[s, 1, 0] + b2 * uv[s, 2, 0]
                    v = b0 * uv[s, 0, 1] + b1 * uv[s, 1, 1] + b2 * uv[s, 2, 1]
                    i, j = int(v * texels) % texels, int(u * texels) % texels
                    if textures[texture[m], i, j, 3] < TRANSPARENT:
                        continue
                inverse_depth[row, column], nearest[row, column] = q, f
                barycentric[row, column, 0], barycentric[row, column, 1] = b0, b1
    return nearest, barycentric, inverse_depth


@compiled
def depth_map(points, faces, size):
    """Return the smallest depth (size, size) at every pixel's centre; infinite if there is none.

    Args:
        points: (n, 3) pixels and depth of an orthographic camera.
        faces: (f, 3).
        size: height and width of the map.
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
