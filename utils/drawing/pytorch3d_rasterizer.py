"""The contract of `rasterizer.rasterize`, kept by pytorch3d where it is installed.

pytorch3d has no wheels for current Python, so nothing needs it; `demo.py --renderer pytorch3d` uses
it. This module converts to its image frame (x left, y up, the shorter side from -1 to 1) and back.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smpler.utils.drawing.rasterizer import Fragments


def available() -> bool:
    """Tell whether pytorch3d can be imported."""
    try:
        import pytorch3d.renderer.mesh  # noqa: F401
    except ImportError:
        return False
    return True


@torch.no_grad()
def rasterize(
    vertices: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
    cull_backfaces: bool = True,
) -> Fragments:
    """Find the nearest triangle at every pixel centre, as `rasterizer.rasterize` does.

    Which triangle owns a centre that lies exactly on an edge is pytorch3d's choice.

    Raises:
        ImportError: pytorch3d is not installed.
    """
    from pytorch3d.renderer.mesh import rasterize_meshes
    from pytorch3d.structures import Meshes

    faces = faces.long()
    seen = [_visible(item, faces, cull_backfaces) for item in vertices]
    # pytorch3d drops what lies behind depth 0, but our depths may be negative
    nearest = vertices[..., 2].nan_to_num(0, 0, 0).amin(dim=1)[:, None] - 1
    x, y, depth = vertices.unbind(-1)
    half = min(height, width) / 2
    ndc = torch.stack([(width / 2 - x) / half, (height / 2 - y) / half, depth - nearest], dim=-1)
    meshes = Meshes(verts=list(ndc), faces=[faces[index] for index in seen])
    face_index, zbuf, barycentric, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=False,
        cull_backfaces=False,
    )
    # pytorch3d counts through the faces of the whole batch; its -1 finds the -1 put last
    ours = torch.cat([*seen, faces.new_full((1,), -1)])[face_index[..., 0]]
    covered = ours >= 0
    return Fragments(
        ours,
        torch.where(covered[..., None], barycentric[..., 0, :], 0.0),
        torch.where(covered, zbuf[..., 0] + nearest[..., None], torch.inf),
    )


def _visible(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], cull_backfaces: bool
) -> Int[Tensor, "n"]:
    """Return the indices of the faces that can be drawn."""
    corners = vertices.double()[faces]
    (x1, y1, _), (x2, y2, _) = (corners[:, 1:] - corners[:, :1]).permute(1, 2, 0)
    area = x1 * y2 - x2 * y1  # y points down: counter-clockwise is negative
    facing = area < 0 if cull_backfaces else area != 0
    return (facing & corners.isfinite().all(dim=(1, 2))).nonzero()[:, 0]
