"""Speed of our rasteriser against a plain one: python -m benchmarks.renderer --device cpu.

Both draw bodies in crops of 224 pixels, a batch at a time, and the overlay of a full-HD photo, in
turns. The baseline draws one triangle after the other into a depth buffer, each on its bounding
box, with numpy on the CPU, whatever the device. First, both are shown to draw the same picture.
"""

import argparse
import sys
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.harness import add_flags, machine, parse, print_table, take_turns, write
from smpler.models.body import mean_parameters, open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.rasterizer import Fragments, rasterize
from smpler.utils.drawing.visualize import Rasterizer, overlay, palette
from smpler.utils.flags import Parser, program
from smpler.utils.geometry import rot6d_to_rotmat
from smpler.utils.image import CROP_SIZE, CropWindow

PHOTO = (1920, 1080)
"""Height and width: a full-HD photo, upright."""
CAM = np.array([1.0, 0.0, -0.05])
"""Scale, tx, ty: the person fills the crop."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print tables, write the numbers."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_flags(parser, batch=8, rounds=3)
    arguments = parse(parser, argv)
    device = torch.device(arguments.device)
    points, faces = bodies(arguments.batch)
    crops = measure(place(points, CropWindow(0, 0, CROP_SIZE, CROP_SIZE)), faces, device, arguments)
    title = f"{arguments.batch} bodies at {CROP_SIZE} pixels"
    print_table(title, crops, "baseline", arguments.batch)
    photo = measure_overlay(points[0], faces, arguments.rounds)
    print_table("overlay of a full-HD photo", photo, "baseline", 1)
    result: dict[str, object] = {"throughput_ratio": crops["baseline"] / crops["ours"]}
    result |= {f"{name}_ms": value for name, value in crops.items()}
    result |= {f"overlay_{name}_ms": value for name, value in photo.items()}
    result |= {"batch": arguments.batch, "rounds": arguments.rounds, "triangles": len(faces)}
    result |= machine(device)
    write(arguments.json, result)
    return 0


def bodies(count: int) -> tuple[Float[np.ndarray, "b v 3"], Int[np.ndarray, "f 3"]]:
    """Return the open body in its mean pose, in several shapes; metres, camera frame."""
    body = open_body()
    rot6d, _ = mean_parameters(body)
    rotmat = rot6d_to_rotmat(torch.from_numpy(rot6d).unflatten(0, (24, 6)))
    betas = torch.randn(count, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vertices = SMPL(body)(rotmat.expand(count, -1, -1, -1), betas).vertices
    return vertices.numpy(), body.faces


def place(points: Float[np.ndarray, "*b 3"], window: CropWindow) -> Float[np.ndarray, "*b 3"]:
    """Take points to a photo's pixels by the crop camera, and depth to the same unit."""
    scale, *shift = CAM
    places = window.to_photo(scale * (points[..., :2] + np.array(shift)))
    depth = points[..., 2:] * scale * window.width / 2
    return np.concatenate([places, depth], axis=-1).astype(np.float32)


def measure(
    vertices: Float[np.ndarray, "b v 3"],
    faces: Int[np.ndarray, "f 3"],
    device: torch.device,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Time both on crops [ms], after they have drawn the same picture."""
    corners, triangles = torch.from_numpy(vertices), torch.from_numpy(faces)
    there = corners.to(device), triangles.to(device)
    size = (CROP_SIZE, CROP_SIZE)
    check_equal(plain_rasterize(corners[:1], triangles, *size), rasterize(*there, *size))
    ways = {
        "baseline": lambda: plain_rasterize(corners, triangles, *size),
        "ours": lambda: rasterize(*there, *size),
    }
    return take_turns(ways, arguments.rounds, device)


def measure_overlay(
    points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], rounds: int
) -> dict[str, float]:
    """Time a body drawn over a photo [ms], on the CPU as the demo does it."""
    height, width = PHOTO
    photo = np.full((height, width, 3), 90, np.uint8)
    vertices = place(points, CropWindow((width - height) // 2, 0, height, height))

    def draw(rasterizer: Rasterizer) -> None:
        overlay(photo, [vertices], faces, palette(1), rasterizer=rasterizer)

    ways = {"baseline": partial(draw, plain_rasterize), "ours": partial(draw, rasterize)}
    return take_turns(ways, rounds, torch.device("cpu"))


def plain_rasterize(
    vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], height: int, width: int
) -> Fragments:
    """Draw each triangle that faces the camera on its bounding box into a depth buffer."""
    shape = (len(vertices), height, width)
    index, depth = np.full(shape, -1), np.full(shape, np.inf)
    weights = np.zeros((*shape, 3))
    for item, corners in enumerate(vertices.double().numpy()):
        for number, face in enumerate(faces.numpy()):
            (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = corners[face]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            left, right = max(int(min(x0, x1, x2)), 0), min(int(max(x0, x1, x2)) + 1, width)
            top, bottom = max(int(min(y0, y1, y2)), 0), min(int(max(y0, y1, y2)) + 1, height)
            if area >= 0 or left >= right or top >= bottom:  # y points down
                continue
            y, x = np.mgrid[top:bottom, left:right] + 0.5
            a = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
            b = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
            c = 1 - a - b
            z = a * z0 + b * z1 + c * z2
            box = item, slice(top, bottom), slice(left, right)
            nearer = (a >= 0) & (b >= 0) & (c >= 0) & (z < depth[box])
            index[box][nearer], depth[box][nearer] = number, z[nearer]
            weights[box][nearer] = np.stack([a, b, c], axis=-1)[nearer]
    parts = index, weights.astype(np.float32), depth.astype(np.float32)
    return Fragments(*map(torch.from_numpy, parts))


def check_equal(plain: Fragments, ours: Fragments) -> None:
    """Fail unless both see the same; on an edge, rounding may choose the neighbour."""
    index, depth = ours.face_index[:1].cpu(), ours.depth[:1].cpu()
    differ = (plain.face_index != index).float().mean().item()
    both = (plain.face_index >= 0) & (index >= 0)
    error = (plain.depth - depth)[both].abs().max().item()
    covered = both.float().mean().item()
    assert differ < 1e-3 and error < 0.5 and covered > 0.1, (differ, error, covered)


if __name__ == "__main__":
    sys.exit(main())
