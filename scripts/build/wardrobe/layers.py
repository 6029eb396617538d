"""Garments as layers over the body: pushed clear of it, and hiding some of its faces."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from smpler.models.body import Body
from smpler.utils.geometry import vertex_normals
from smpler.utils.joints import SMPL_NAMES

PUSH = 3.5e-3
"""Every layer is moved away from the body at least this far [m]: skin must not show through."""
MAX_PUSH = 9e-3
"""The farthest that it is moved [m]."""
CLEARANCE = 2e-3
"""Distance between body and layer [m] that is aimed at, for all of `NUM_BODIES` bodies."""
NUM_BODIES = 24
BETA_LIMIT = 2.5
"""Largest beta of these bodies."""
WEIGHT_LENGTH = 0.15
"""Extra distance [m] between two places that different joints move: an arm is not a hip."""
NUM_NEAREST = 8
"""Vertices of the body that a vertex of a layer is blended from."""
ROUNDS = 3
"""How often the push is corrected, and how often smoothed each time."""
SOCK, TIGHT = 0.09, 2.5e-3
"""Height of a sock's edge above the ankle, and a sock's distance from the skin [m]."""

SKIRT_TOP, SKIRT_WIDTH = -0.04, 0.16
"""Height at rest [m] below which legs begin to carry a skirt; and the length [m] over which they
take it over completely downwards, and one leg takes it over from the other sidewards."""

REACH = 0.04
"""A face is covered if a ray from it meets the garment within this length [m] ..."""
RIM = 0.015
"""... and if no uncovered vertex is this near [m]: along hems, skin goes on below the cloth."""
NUM_CANDIDATES = 64
"""Triangles of the garment, those nearest to a ray, that are tested."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A garment that is posed as the body is; metres."""

    v_template: Float[np.ndarray, "n 3"]
    shapedirs: Float[np.ndarray, "n 3 10"]
    lbs_weights: Float[np.ndarray, "n 24"]
    faces: Int[np.ndarray, "f 3"]


class Surface:
    """The body's surface, of several people in rest pose."""

    def __init__(self, body: Body, suits: str, rng: np.random.Generator):
        betas = rng.normal(size=(NUM_BODIES, body.shapedirs.shape[2]))
        betas = betas.clip(-BETA_LIMIT, BETA_LIMIT)
        betas[:, 2] = with_sex(betas[:, 2], suits)
        betas[0] = 0
        self.body, self.betas = body, betas
        self.vertices = body.v_template + np.moveaxis(body.shapedirs @ betas.T, -1, 0)
        self.normals = normals(self.vertices, body.faces)
        self.tree = cKDTree(_places(body.v_template, body.lbs_weights))

    def nearest(self, layer: Layer, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and indices (n, count) of the body's vertices nearest to a layer's."""
        distance, index = self.tree.query(_places(layer.v_template, layer.lbs_weights), count)
        return distance.reshape(-1, count), index.reshape(-1, count)

    def blend(self, layer: Layer) -> scipy.sparse.csr_array:
        """Return weights (n, V) that carry quantities of the body's vertices to the layer's."""
        distance, index = self.nearest(layer, NUM_NEAREST)
        weights = 1 / (distance + 5e-3) ** 2
        weights /= weights.sum(axis=1, keepdims=True)
        rows = np.repeat(np.arange(len(index)), NUM_NEAREST)
        shape = (len(index), self.body.num_vertices)
        return scipy.sparse.coo_array((weights.ravel(), (rows, index.ravel())), shape).tocsr()

    def clearance(self, layer: Layer) -> Float[np.ndarray, "n"]:
        """Return how far outside each vertex is on that body where it is nearest; < 0: inside."""
        index = self.nearest(layer, 1)[1][:, 0]
        worn = layer.v_template + np.moveaxis(layer.shapedirs @ self.betas.T, -1, 0)
        height = ((worn - self.vertices[:, index]) * self.normals[:, index]).sum(axis=-1)
        return height.min(axis=0)


def with_sex(beta: Float[np.ndarray, "n"], suits: str) -> Float[np.ndarray, "n"]:
    """Make the third beta (female +) suit the garment."""
    return {"both": beta, "female": np.abs(beta), "male": -np.abs(beta)}[suits]


def normals(vertices: Float[np.ndarray, "b v 3"], faces: np.ndarray) -> Float[np.ndarray, "b v 3"]:
    """Return unit normals of the vertices."""
    return vertex_normals(torch.from_numpy(vertices).float(), torch.from_numpy(faces)).numpy()


def skinned_like_body(layer: Layer, surface: Surface) -> Layer:
    """Give a layer the skinning weights of the body beneath it."""
    distance, index = cKDTree(surface.body.v_template).query(layer.v_template, NUM_NEAREST)
    share = 1 / (distance + 5e-3) ** 2
    weights = (share[..., None] * surface.body.lbs_weights[index]).sum(axis=1)
    return replace(layer, lbs_weights=strongest_four(weights))


def as_skirt(layer: Layer) -> Layer:
    """Let the legs carry the part below the hips; in the middle both do, so that it spans them."""
    side, height = layer.v_template[:, 0], layer.v_template[:, 1]
    left = smooth_step(side / SKIRT_WIDTH + 0.5)
    carried = smooth_step((SKIRT_TOP - height) / SKIRT_WIDTH)
    legs = [SMPL_NAMES.index(name) for name in ("L_Hip", "R_Hip")]
    shared = np.zeros_like(layer.lbs_weights)
    shared[:, legs] = np.stack([left, 1 - left], axis=1)
    weights = (1 - carried)[:, None] * layer.lbs_weights + carried[:, None] * shared
    return replace(layer, lbs_weights=strongest_four(weights))


def smooth_step(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Rise smoothly from 0 to 1 while x goes from 0 to 1."""
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


def strongest_four(weights: Float[np.ndarray, "n 24"]) -> Float[np.ndarray, "n 24"]:
    """Keep each vertex's four largest weights, which then sum to 1."""
    fourth = np.sort(weights, axis=1)[:, -4:-3]
    weights = np.where(weights >= fourth, weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def pushed_out(layer: Layer, surface: Surface) -> Layer:
    """Move a layer away from the body, by a distance that depends on the body's spot alone.

    Everything over one spot moves alike, so that lapels stay over shirts.
    """
    blend, edges = surface.blend(layer), _edges(surface.body.faces, surface.body.num_vertices)
    direction = blend @ surface.normals[0]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    push = np.full(surface.body.num_vertices, PUSH)
    for _ in range(ROUNDS):
        moved = replace(layer, v_template=layer.v_template + (blend @ push)[:, None] * direction)
        missing = (CLEARANCE - surface.clearance(moved)).clip(0)
        need = np.zeros_like(push)
        entries = blend.tocoo()
        np.maximum.at(need, entries.col, missing[entries.row])
        for _ in range(ROUNDS):
            need = np.maximum(need, edges @ need)  # the mean of the neighbours
        push = (push + need).clip(max=MAX_PUSH)
    push = edges @ push
    return replace(layer, v_template=layer.v_template + (blend @ push)[:, None] * direction)


def with_tight_socks(layer: Layer, surface: Surface) -> Layer:
    """Lay socks, the pieces of shoes that end above the ankles, on the skin, under the trousers."""
    pieces = connected_components(_edges(layer.faces, len(layer.v_template)), directed=False)[1]
    top = np.full(pieces.max() + 1, -np.inf)
    np.maximum.at(top, pieces, layer.v_template[:, 1])
    ankle = (surface.body.J_regressor @ surface.body.v_template)[SMPL_NAMES.index("L_Ankle"), 1]
    sock = np.flatnonzero(top[pieces] > ankle + SOCK)
    index = surface.nearest(layer, 1)[1][sock, 0]
    normal, v_template = surface.normals[0][index], layer.v_template.copy()
    height = ((v_template[sock] - surface.body.v_template[index]) * normal).sum(axis=1)
    v_template[sock] += (TIGHT - height)[:, None] * normal
    shapedirs = layer.shapedirs.copy()
    blended = surface.blend(layer)[sock] @ surface.body.shapedirs.reshape(
        len(surface.normals[0]), -1
    )
    shapedirs[sock] = blended.reshape(shapedirs[sock].shape)
    return replace(layer, v_template=v_template, shapedirs=shapedirs)


def anchors(layer: Layer, surface: Surface) -> Int[np.ndarray, "n"]:
    """Return the body's vertex that each of the layer's vertices follows."""
    return surface.nearest(layer, 1)[1][:, 0]


def hidden_faces(layer: Layer, surface: Surface) -> Bool[np.ndarray, "body_faces"]:
    """Find the body's faces that lie so deep under a garment that no pose shows them."""
    body = surface.body
    covered = _meets(body.v_template, surface.normals[0], layer.v_template[layer.faces])
    lengths = _edges(body.faces, body.num_vertices, body.v_template)
    open_vertices = np.flatnonzero(~covered)
    depth = dijkstra(lengths, indices=open_vertices, min_only=True, limit=2 * RIM)
    return (depth[body.faces] > RIM).all(axis=1)


def _places(vertices, lbs_weights) -> Float[np.ndarray, "n 27"]:
    """Return where vertices are and which joints move them, as one point each."""
    return np.concatenate([vertices, WEIGHT_LENGTH * lbs_weights], axis=1)


def _edges(faces, num_vertices: int, vertices=None) -> scipy.sparse.csr_array:
    """Return edge lengths (V, V) [m]; without vertices, weights that average over neighbours."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    length = np.ones(len(ends))
    if vertices is not None:
        length = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)
    half = scipy.sparse.coo_array((length, ends.T), (num_vertices, num_vertices)).tocsr()
    graph = half + half.T
    if vertices is None:
        graph = scipy.sparse.diags_array(1 / graph.sum(axis=1).clip(1)) @ graph
    return scipy.sparse.csr_array(graph)


def _meets(
    origin: Float[np.ndarray, "v 3"],
    direction: Float[np.ndarray, "v 3"],
    corners: Float[np.ndarray, "f 3 3"],
) -> Bool[np.ndarray, "v"]:
    """Say which rays meet a triangle within `REACH`, among those whose centres are nearest.

    Möller and Trumbore, "Fast, Minimum Storage Ray/Triangle Intersection", 1997.
    """
    centers = cKDTree(corners.mean(axis=1))
    meets = np.zeros(len(origin), bool)
    for height in (0, 0.02, 0.05):
        _, near = centers.query(origin + height * direction, min(NUM_CANDIDATES, len(corners)))
        first, *others = np.moveaxis(corners[near], 2, 0)
        side1, side2 = (other - first for other in others)
        ray = np.broadcast_to(direction[:, None], first.shape)
        across = np.cross(ray, side2)
        scale = (side1 * across).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_origin = origin[:, None] - first
            u = (to_origin * across).sum(-1) / scale
            turned = np.cross(to_origin, side1)
            v = (ray * turned).sum(-1) / scale
            distance = (side2 * turned).sum(-1) / scale
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0) & (distance < REACH)
        meets |= hit.any(axis=1)
    return meets
