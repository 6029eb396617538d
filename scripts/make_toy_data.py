"""Make small data sets laid out as the published ones: python -m scripts.make_toy_data --out DIR.

Pictures show the open body, plainly shaded, in random simple poses before clouds of colour; labels
are exact. Nothing is downloaded, no licence is needed, and the same seed gives the same files.
Afterwards `SMPLER_DATASETS=DIR python main.py ...` trains and evaluates on them.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from smpler.datasets.tsv import TsvWriter, write_composite
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.rasterizer import rasterize
from smpler.utils.flags import Parser, output_folder, positive, program, whole
from smpler.utils.image import BOX_MARGIN
from smpler.utils.joints import ANNOTATION_NAMES, ANNOTATION_PELVIS, SMPL_NAMES

SUPERSAMPLING = 2
"""Pictures are drawn at this many times their size."""
CLOTHES = {
    "shirt": ("Spine1", "Spine2", "Spine3", "L_Collar", "R_Collar", "L_Shoulder", "R_Shoulder"),
    "trousers": ("Pelvis", "L_Hip", "R_Hip", "L_Knee", "R_Knee"),
    "shoes": ("L_Ankle", "R_Ankle", "L_Foot", "R_Foot"),
}
"""Garment -> joints whose vertices it covers; the others show skin."""

ARMS_DOWN = {"L_Shoulder": (0, 0, -1.1), "R_Shoulder": (0, 0, 1.1)}
"""Axis-angle, radians, that brings the arms down from the rest pose, in which they are spread."""
SPREADS = {"Hip": 0.35, "Knee": 0.25, "Shoulder": 0.45, "Elbow": 0.5, "Spine1": 0.1, "Head": 0.15}
"""Standard deviation [rad] of each axis of the joints that move."""


@dataclass(frozen=True)
class ToySet:
    """One of the sets that are written."""

    path: str
    """Published path of the yaml."""
    has_3d: bool = True
    has_smpl: bool = True
    has_gender: bool = False


SETS = (
    ToySet("human3.6m/train.yaml"),
    ToySet("coco_smpl/train.yaml", has_3d=False),
    ToySet("muco/train.yaml", has_smpl=False),
    ToySet("human3.6m/valid.protocol2.yaml", has_smpl=False),
    ToySet("3dpw/train.yaml"),
    ToySet("3dpw/test_has_gender.yaml", has_gender=True),
)
MIXED = "Tax-H36m-coco40k-Muco-UP-Mpii/train.yaml"
MIXED_SOURCES = ("human3.6m/train.yaml", "coco_smpl/train.yaml", "muco/train.yaml")


@program
def main(argv: list[str] | None = None) -> int:
    """Write all sets, and print their names and sizes."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=output_folder, required=True, help="folder for the data sets")
    parser.add_argument("--num", type=positive, default=8, help="samples of each set")
    parser.add_argument("--seed", type=whole, default=0)
    arguments = parser.parse_args(argv)
    begin = time.perf_counter()
    write_all(arguments.out, arguments.num, arguments.seed)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*.tsv")) / 1e6
    seconds = time.perf_counter() - begin
    print(f"{len(SETS) + 1} data sets, {size:.1f} MB, in {seconds:.1f} s. Use them with")
    print(f"    SMPLER_DATASETS={arguments.out} python main.py ...")
    return 0


def write_all(out: Path, num: int, seed: int = 0) -> None:
    """Write every set under its published path."""
    person = Person(SMPL(open_body()))
    for number, toy in enumerate(SETS):
        with TsvWriter(out / toy.path) as writer:
            for sample in range(num):
                rng = np.random.default_rng([seed, number, sample])
                image, label = make_sample(person, toy, rng)
                data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
                key = f"toy/{Path(toy.path).parent.name}/{sample:05d}.jpg"
                writer.add(key, data.tobytes(), image.shape[:2], label)
        print(f"{toy.path}: {num} samples")
    write_composite(out / MIXED, [out / source for source in MIXED_SOURCES])
    print(f"{MIXED}: {num * len(MIXED_SOURCES)} samples of {len(MIXED_SOURCES)} sources")


class Person:
    """The body that is posed, and the joint that each vertex belongs to."""

    def __init__(self, smpl: SMPL):
        self.smpl = smpl
        self.regressor = torch.from_numpy(smpl.body.annotation_regressor)
        self.owner = smpl.body.lbs_weights.argmax(axis=1)

    def pose(
        self, pose: Float[np.ndarray, "72"], betas: Float[np.ndarray, "10"]
    ) -> tuple[Float[torch.Tensor, "v 3"], Float[torch.Tensor, "24 3"]]:
        """Return vertices and annotated joints, metres, camera's frame, about SMPL's origin."""
        numbers = (torch.from_numpy(x[None].astype(np.float32)) for x in (pose, betas))
        with torch.no_grad():
            vertices = self.smpl(*numbers).vertices[0]
        return vertices, self.regressor @ vertices

    def colors(self, rng: np.random.Generator) -> Float[torch.Tensor, "v 3"]:
        """Draw skin and clothes."""
        skin = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.45, 1.1)
        by_joint = np.tile(skin, (len(SMPL_NAMES), 1))
        for names in CLOTHES.values():
            by_joint[[SMPL_NAMES.index(name) for name in names]] = rng.uniform(0.1, 0.9, 3)
        return torch.from_numpy(by_joint[self.owner].astype(np.float32))


def make_sample(
    person: Person, toy: ToySet, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], dict]:
    """Draw a person, a camera and a background; return the picture and its label."""
    height, width = rng.integers(280, 420, 2).tolist()
    pose, betas = random_pose(rng), rng.normal(0, 0.7, 10)
    vertices, joints = person.pose(pose, betas)
    focal = rng.uniform(1.2, 2.5) * height
    extent = (vertices.max(0).values - vertices.min(0).values)[:2].numpy()
    depth = focal * max(extent / (rng.uniform(0.6, 0.85) * np.array([width, height])))
    middle = (vertices.max(0).values + vertices.min(0).values)[:2].numpy() / 2
    shift = rng.uniform(-0.1, 0.1, 2) * [width, height] * depth / focal
    translation = np.append(shift - middle, depth).astype(np.float32)
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    image = draw(person, vertices + torch.from_numpy(translation), camera, (height, width), rng)
    outline, joints_2d = (
        project(points.numpy() + translation, camera) for points in (vertices, joints)
    )
    low, high = outline.min(axis=0), outline.max(axis=0)
    label = {
        "center": (low + high) / 2,
        "scale": BOX_MARGIN * float(max(high - low)) / 200,
        "2d_joints": np.column_stack([joints_2d, np.ones(len(joints_2d))]),
        "has_2d_joints": 1,
        "3d_joints": np.zeros((len(ANNOTATION_NAMES), 4)),
        "has_3d_joints": int(toy.has_3d),
        "pose": pose if toy.has_smpl else np.zeros(72),
        "betas": betas if toy.has_smpl else np.zeros(10),
        "has_smpl": int(toy.has_smpl),
    }
    if toy.has_3d:
        position = (joints - joints[ANNOTATION_PELVIS]).double().numpy()
        label["3d_joints"] = np.column_stack([position, np.ones(len(position))])
    if toy.has_gender:
        label["gender"] = str(rng.choice(["m", "f"]))
    return image, label


def random_pose(rng: np.random.Generator) -> Float[np.ndarray, "72"]:
    """Draw a standing pose: upright, turned by up to 60 degrees from facing the camera."""
    pose = np.zeros((len(SMPL_NAMES), 3))
    for index, name in enumerate(SMPL_NAMES):
        spread = SPREADS.get(name, SPREADS.get(name[2:], 0.0))
        pose[index] = ARMS_DOWN.get(name, (0, 0, 0)) + rng.normal(0, 1, 3) * spread
    for name in ("L_Knee", "R_Knee"):  # a knee bends one way
        pose[SMPL_NAMES.index(name)] = np.abs(rng.normal(0, 0.5)), 0, 0
    upside_down = Rotation.from_rotvec([np.pi, 0, 0])  # from y up, z forward to the camera's frame
    turn = Rotation.from_rotvec([0, rng.uniform(-1, 1) * np.pi / 3, 0])
    lean = Rotation.from_rotvec(rng.normal(0, 0.08, 3))
    pose[0] = (upside_down * lean * turn).as_rotvec()
    return pose.reshape(-1)


def project(
    points: Float[np.ndarray, "n 3"], camera: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n 2"]:
    """Project by a pinhole; labels count pixels from the centre of the first one."""
    projected = points.astype(np.float64) @ camera.T
    return projected[:, :2] / projected[:, 2:] - 0.5


def draw(
    person: Person,
    vertices: Float[torch.Tensor, "v 3"],
    camera: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """Shade the body under one light before a background."""
    height, width = (SUPERSAMPLING * side for side in size)
    faces = person.smpl.faces
    pixels = SUPERSAMPLING * (project(vertices.numpy(), camera) + 0.5)
    corners = torch.column_stack([torch.from_numpy(pixels).float(), vertices[:, 2]])
    seen = rasterize(corners[None], faces, height, width, perspective=True)
    covered = seen.face_index[0] >= 0
    corner = faces[seen.face_index[0][covered]]  # (n, 3)
    weights = seen.barycentric[0][covered][..., None]
    normal = (normals(vertices, faces)[corner] * weights).sum(1)
    color = (person.colors(rng)[corner] * weights).sum(1)
    light = torch.tensor([*rng.uniform(-0.7, 0.7, 2), -1.0], dtype=torch.float32)
    light[1] -= 0.5  # from above: y points down
    lambert = (torch.nn.functional.normalize(normal, dim=1) @ (light / light.norm())).clamp(min=0)
    image = background(height, width, rng)
    image[covered.numpy()] = (color * (0.35 + 0.65 * lambert[:, None])).clamp(0, 1).numpy()
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return np.rint(255 * np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1)).astype(np.uint8)


def normals(
    vertices: Float[torch.Tensor, "v 3"], faces: torch.Tensor
) -> Float[torch.Tensor, "v 3"]:
    """Return vertex normals, outwards, weighted by the faces' areas; not of unit length."""
    a, b, c = vertices[faces].unbind(1)
    face_normals = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(0, faces[:, corner], face_normals)
    return total


def background(height: int, width: int, rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Draw a gradient with clouds of two sizes."""
    top, bottom = rng.uniform(0.1, 0.9, (2, 3))
    image = np.linspace(top, bottom, height)[:, None] * np.ones((1, width, 1))
    for cells, strength in ((4, 0.25), (24, 0.1)):
        clouds = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 1).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
