"""Measure how diverse the open data engine's people are, and that no two are the same.

`python -m benchmarks.data_diversity --out FILE.png --json FILE.json` draws the labels of 10,000
training samples (height, BMI, directions, joint angles, crop scale, truncation), plots their
distributions, compares every two of them, and hashes the pictures of some.

`--poses FILE.npz` says how well they cover recorded poses: the share of FILE's poses that are more
than 20 degrees from every drawn one. FILE holds `pose` (n, 24, 3), SMPL's axis-angle [radians], and
optionally `source` (n,), names, for which the share is given apart. The distance of two poses is
the root mean square, over the 23 joints but the root, of the angle between the joints' rotations
relative to their parents.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from benchmarks.harness import write
from scripts.render_dataset import as_it_is
from smpler.datasets.engine.poses.anatomy import angles_from_pose
from smpler.datasets.engine.poses.sampler import VERSIONS, PoseSampler
from smpler.datasets.engine.stream import SPLITS, SyntheticPeople
from smpler.models.body import Body, open_body
from smpler.utils.files.arrays import read_npz
from smpler.utils.flags import Parser, input_file, output_file, output_png, positive, program, whole
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import SMPL_NAMES
from smpler.utils.paths import display

DENSITY = 985.0
"""Density of a human body, kg / m3."""
ANGLES = {
    "hip flexion": ("Hip", 0, -1),
    "knee flexion": ("Knee", 0, 1),
    "shoulder: forward": ("Shoulder", 1, -1),
    "shoulder: up": ("Shoulder", 2, 1),
    "elbow flexion": ("Elbow", 1, -1),
}
"""Name -> joint of both sides, axis and sign in `smpler.datasets.engine.poses.anatomy`'s angles."""
FAR = 20.0
"""Root mean square angle [degrees] beyond which a recorded pose counts as not covered."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print, draw."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--num", type=positive, default=10_000, help="samples")
    add("--images", type=positive, default=500, help="samples that are rendered and hashed")
    add("--split", choices=SPLITS, default="train")
    add("--seed", type=whole, default=0)
    add("--pose_version", type=int, choices=VERSIONS, default=2, help="of the poses")
    add("--poses", type=input_file, help="npz file of recorded poses: how many are covered")
    add("--num_workers", type=whole, default=2)
    add("--out", type=output_png, help="picture")
    add("--json", type=output_file, help="the numbers")
    args = parser.parse_args(argv)
    recorded = read_poses(args.poses) if args.poses else None
    body, poses = open_body(), PoseSampler(version=args.pose_version)
    stream = SyntheticPeople(body, poses=poses, split=args.split, seed=args.seed)
    drawn = collect(Numbers(stream, args.num), args.num_workers)
    drawn |= measure(body, drawn["betas"])
    pictures = collect(Hashes(stream, min(args.images, args.num)), args.num_workers)
    result = {"samples": args.num, "images": len(pictures["hash"])}
    result |= uniqueness(drawn, pictures["hash"])
    if recorded:
        result |= coverage(*recorded, drawn["pose"])
    quantities = distributions(drawn)
    for name, values in quantities.items():
        low, middle, high = np.percentile(values, (5, 50, 95)).round(2).tolist()
        result[name] = {"p5": low, "median": middle, "p95": high}
    for name, value in result.items():
        print(f"{name}: {value}")
    if args.out:
        draw(quantities, args.out)
    write(args.json, result)
    return 0


class Numbers(Dataset):
    """The numbers of a sample's labels, without rendering it."""

    def __init__(self, stream: SyntheticPeople, count: int):
        self.stream, self.count = stream, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        scene = self.stream.scene(index)
        subject, framing = scene.actors[0], scene.framing
        places = framing.project(subject.joints)
        in_crop = ((places >= 0) & (places < CROP_SIZE)).all(axis=1)
        return {
            "pose": subject.pose(),
            "betas": np.asarray(subject.betas, np.float64),
            "camera": np.array([framing.focal, *framing.center, framing.rotation]),
            "root": subject.rotmat[0],
            "crop scale": np.ptp(places, axis=0).max() / CROP_SIZE,
            "cut off": 1 - (in_crop & framing.inside(places)).mean(),
            "distance": np.linalg.norm(subject.joints[0]),
            "others": len(scene.actors) - 1,
        }


class Hashes(Numbers):
    """A hash of a sample's picture."""

    def __getitem__(self, index: int) -> dict[str, str]:
        image = self.stream.sample(index)["image"].numpy()
        return {"hash": hashlib.sha256(image.tobytes()).hexdigest()}


def collect(dataset: Dataset, num_workers: int) -> dict[str, np.ndarray]:
    """Return each entry of all samples as one array."""
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers, collate_fn=as_it_is)
    samples = list(tqdm(loader, desc=type(dataset).__name__))
    return {key: np.array([sample[key] for sample in samples]) for key in samples[0]}


def measure(body: Body, betas: Float[np.ndarray, "n 10"]) -> dict[str, np.ndarray]:
    """Return height [m] and body mass index of everyone, from the mesh at rest."""
    faces = body.faces
    heights, masses = [], []
    for some in np.array_split(betas.astype(np.float32), max(1, len(betas) // 100)):
        vertices = body.v_template + np.einsum("vck,nk->nvc", body.shapedirs, some, optimize=True)
        a, b, c = (vertices[:, corner] for corner in faces.T)
        heights.append(np.ptp(vertices[..., 1], axis=1))
        masses.append(DENSITY * (a * np.cross(b, c)).sum((1, 2), dtype=np.float64) / 6)
    height, mass = np.concatenate(heights), np.concatenate(masses)
    return {"height": height, "bmi": mass / height**2}


def distributions(drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the plotted quantities, by the name and unit that stand under the plot."""
    up, forward = drawn["root"][:, :, 1], drawn["root"][:, :, 2]  # x right, y down, z away
    angles = angles_from_pose(drawn["pose"])
    sides = {
        f"{name} [degrees]": sign
        * angles[:, [SMPL_NAMES.index(f"{side}_{joint}") for side in "LR"], axis].ravel()
        for name, (joint, axis, sign) in ANGLES.items()
    }
    head = angles[:, [SMPL_NAMES.index(name) for name in ("Neck", "Head")], 1].sum(axis=1)
    return {
        "height [m]": drawn["height"],
        "BMI [kg/m2]": drawn["bmi"],
        "facing the camera 0, left 90 [degrees]": np.rad2deg(
            np.arctan2(forward[:, 0], -forward[:, 2])
        ),
        "body's tilt from upright in the picture [degrees]": np.rad2deg(
            np.arccos(np.clip(-up[:, 1], -1, 1))
        ),
        "distance to the camera [m]": drawn["distance"],
        "crop scale: joints' extent / crop": drawn["crop scale"],
        "truncation: share of joints cut off": drawn["cut off"],
        **sides,
        "head turn [degrees]": head,
    }


def uniqueness(drawn: dict[str, np.ndarray], hashes: np.ndarray) -> dict[str, float]:
    """Count labels and pictures that occur twice, and find the two most alike poses.

    Poses are compared without the global rotation, by the distance of the joints' axis-angle
    vectors: nearly the angle between the rotations.
    """
    count = len(drawn["pose"])
    label = np.concatenate([drawn[key].reshape(count, -1) for key in _LABELS], axis=1)
    rounded = np.round(label, 4)
    pose = torch.from_numpy(drawn["pose"][:, 1:]).float().flatten(1)
    nearest = torch.full((len(pose),), torch.inf)
    for start in range(0, len(pose), 500):
        gap = torch.cdist(pose[start : start + 500], pose)
        gap[torch.arange(len(gap)), torch.arange(start, start + len(gap))] = torch.inf
        nearest[start : start + 500] = gap.amin(1)
    degrees = np.rad2deg(nearest.numpy() / np.sqrt(len(SMPL_NAMES) - 1))
    return {
        "labels that occur twice": int(len(rounded) - len(np.unique(rounded, axis=0))),
        "pictures that occur twice": int(len(hashes) - len(np.unique(hashes))),
        "rms angle between the two most alike poses [degrees]": round(float(degrees.min()), 2),
        "median rms angle to the most alike pose [degrees]": round(float(np.median(degrees)), 2),
    }


_LABELS = ("pose", "betas", "camera")


def read_poses(path: Path) -> tuple[Float[np.ndarray, "n 24 3"], np.ndarray]:
    """Return a file's poses [radians] and their sources, all "" if it names none.

    Raises:
        ValueError: it holds no poses, or not those of SMPL's joints.
    """
    arrays = read_npz(path, ("pose", "source"), "holds no recorded poses")
    pose = arrays.get("pose", np.empty(0))
    source = arrays.get("source", np.full(len(pose), ""))
    if pose.dtype.kind != "f" or pose.shape[1:] != (len(SMPL_NAMES), 3):
        raise ValueError(f"{display(path)} holds no recorded poses: `pose` is not (n, 24, 3).")
    if source.shape != pose.shape[:1] or source.dtype.kind != "U":
        raise ValueError(f"{display(path)}: `source` is not one name for each pose.")
    pose = pose.astype(np.float64)
    return pose, source


def coverage(
    pose: Float[np.ndarray, "n 24 3"], source: np.ndarray, drawn: Float[np.ndarray, "m 24 3"]
) -> dict[str, float]:
    """Return the share of poses that are far from every drawn one, of all and of each source."""
    far = nearest_angle(pose, drawn) > FAR
    name = f"share of recorded poses farther than {FAR:g} degrees from every drawn one"
    shares = {name: round(float(far.mean()), 3)}
    for one in np.unique(source[source != ""]):
        shares[f"{name}, {one}"] = round(float(far[source == one].mean()), 3)
    return shares


def nearest_angle(
    poses: Float[np.ndarray, "n 24 3"], others: Float[np.ndarray, "m 24 3"]
) -> Float[np.ndarray, "n"]:
    """Return each pose's distance [degrees] to the nearest of the others, see the module's text."""
    # (n, 24, 3) -> (23, n, 4): quaternions; the angle between two is 2 arccos |their product|
    first, second = (
        torch.from_numpy(Rotation.from_rotvec(pose[:, 1:].reshape(-1, 3)).as_quat()).float()
        .unflatten(0, (len(pose), -1)).transpose(0, 1)
        for pose in (poses, others)
    )  # fmt: skip
    nearest = []
    for some in first.split(250, dim=1):
        total = torch.zeros(some.shape[1], second.shape[1])
        for joint, other in zip(some, second, strict=True):
            half = (joint @ other.T).abs_().clamp_(max=1).acos_()
            total.addcmul_(half, half)
        nearest.append(total.amin(dim=1))
    return np.rad2deg(2 * (torch.cat(nearest).numpy() / len(first)) ** 0.5)


def draw(quantities: dict[str, np.ndarray], path: Path) -> None:
    """Plot every distribution."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 4
    rows = -(-len(quantities) // columns)
    figure, places = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 2.1 * rows))
    for place in places.flat[len(quantities) :]:
        place.axis("off")
    for place, (name, values) in zip(places.flat, quantities.items(), strict=False):
        place.hist(values, bins=60, color="#4c78a8")
        place.set_xlabel(name, fontsize=8)
        place.tick_params(labelsize=7)
        place.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
