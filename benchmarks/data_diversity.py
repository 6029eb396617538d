"""Measure how diverse the open data engine's people are, and that no two are the same.

`python -m benchmarks.data_diversity --out FILE.png --json FILE.json` draws the labels of 10,000
training samples (height, BMI, directions, joint angles, crop scale, truncation), plots their
distributions, compares every two of them, and hashes the pictures of some.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from benchmarks.harness import write
from scripts.render_dataset import as_it_is
from smpler.datasets.engine.poses.anatomy import angles_from_pose
from smpler.datasets.engine.stream import SPLITS, SyntheticPeople
from smpler.models.body import Body, open_body
from smpler.utils.flags import positive, whole
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import SMPL_NAMES

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


def main(argv: list[str] | None = None) -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--num", type=positive, default=10_000, help="samples")
    add("--images", type=positive, default=500, help="samples that are rendered and hashed")
    add("--split", choices=SPLITS, default="train")
    add("--seed", type=whole, default=0)
    add("--num_workers", type=whole, default=2)
    add("--out", type=Path, help="picture")
    add("--json", type=Path, help="the numbers")
    args = parser.parse_args(argv)
    body = open_body()
    stream = SyntheticPeople(body, split=args.split, seed=args.seed)
    drawn = collect(Numbers(stream, args.num), args.num_workers)
    drawn |= measure(body, drawn["betas"])
    pictures = collect(Hashes(stream, min(args.images, args.num)), args.num_workers)
    result = {"samples": args.num, "images": len(pictures["hash"])}
    result |= uniqueness(drawn, pictures["hash"])
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
