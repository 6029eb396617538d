import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from smpler.datasets.engine import photo
from smpler.datasets.engine.gpu_stream import SyntheticBatches
from smpler.datasets.engine.render import torch_photo
from smpler.datasets.engine.render.scene_batch import pack_scenes
from smpler.datasets.engine.stream import OPTIONS, SyntheticPeople
from smpler.models.body import open_body
from smpler.utils.paths import ROOT
from tests.support.standin_wardrobe import Poses, wardrobe
from tests.support.tsv_data import smooth_image

INDICES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def stream() -> SyntheticPeople:
    body = open_body()
    return SyntheticPeople(body, wardrobe(body), Poses(), seed=5, options=OPTIONS)


@pytest.fixture(scope="module")
def batches(stream) -> SyntheticBatches:
    return SyntheticBatches(stream, batch_size=2, device="cpu")


def render(batches: SyntheticBatches, scenes: list):
    return batches.renderer.render(pack_scenes(scenes, len(batches.stream.people.hidden_faces)))


@pytest.fixture(scope="module")
def both(stream, batches) -> tuple[list, object]:
    """The same scenes by the compiled and by the torch renderer."""
    scenes = [stream.scene(index) for index in INDICES]
    return [stream.renderer.render(scene) for scene in scenes], render(batches, scenes)


def test_torch_and_compiled_code_pose_the_same_bodies(both):
    for number, one in enumerate(both[0]):
        error = np.abs(one.vertices - both[1].vertices[number].numpy()).max()
        assert error < 1e-5, f"{1000 * error:.4f} mm"


def test_torch_and_compiled_code_see_the_same_people(both):
    """Intersection over union of the masks above 0.999; the same depth and body parts."""
    for number, one in enumerate(both[0]):
        mask, depth, parts = (
            getattr(both[1], name)[number].numpy() for name in ("mask", "depth", "parts")
        )
        overlap = np.minimum(mask, one.mask).sum() / np.maximum(mask, one.mask).sum()
        assert overlap > 0.999, overlap
        assert (parts == one.parts).mean() > 0.999
        seen = (mask > 0) & (one.mask > 0)
        assert np.quantile(np.abs(depth[seen] - one.depth[seen]), 0.999) < 1e-4


def test_torch_and_compiled_code_see_the_same_light(both):
    """Mean difference below a thousandth of the mean light: no shadow, texture or hole differs."""
    for number, one in enumerate(both[0]):
        error = np.abs(both[1].light[number].numpy() - one.light).mean() / one.light.mean()
        assert error < 1e-3, error
        assert np.abs(both[1].alpha[number].numpy() - one.alpha).mean() < 1e-3


def test_a_scene_does_not_depend_on_its_batch(stream, batches):
    scenes = [stream.scene(index) for index in INDICES]
    together, alone = render(batches, scenes), render(batches, scenes[2:3])
    assert (together.light[2] - alone.light[0]).abs().mean() < 1e-5
    assert (together.mask[2] != alone.mask[0]).float().mean() < 1e-4


def test_a_batch_is_the_streams_samples(stream, batches):
    batch = batches.batch(INDICES)
    expected = default_collate([stream.sample(index) for index in INDICES])
    assert batch.keys() == expected.keys() and batch["key"] == expected["key"]
    for name in batch.keys() - {"key"}:
        assert (batch[name].shape, batch[name].dtype) == (
            expected[name].shape,
            expected[name].dtype,
        ), name
    levels = 255 * (batch["image"] - expected["image"]).abs()
    assert levels.mean() < 1, f"{levels.mean():.2f} grey levels"
    for name in ("keypoints_2d", "keypoints_3d", "pose", "betas", "center", "scale"):
        assert torch.allclose(batch[name], expected[name], atol=2e-5), name
    assert (batch["visible"] == expected["visible"]).float().mean() > 0.97


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_go_through_the_stream_in_order(batches, num_workers):
    batches.num_workers = num_workers
    iterator = iter(batches)
    assert [next(iterator)["index"].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    batches.num_workers = 0


def test_ranks_share_the_batches(stream):
    body = stream.people.body
    seen = []
    for rank in range(2):
        part = SyntheticPeople(body, wardrobe(body), Poses(), rank=rank, world_size=2)
        iterator = iter(SyntheticBatches(part, 2, "cpu", first=4))
        seen += [next(iterator)["index"].tolist() for _ in range(2)]
    assert seen == [[4, 6], [8, 10], [5, 7], [9, 11]]


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_torch_jpeg_is_the_encoders(quality):
    """Below one grey level in the mean, and a small part of what the compression itself does."""
    image = smooth_image(224, 224)
    image = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255)
    image = image.astype(np.uint8)
    expected = 255 * photo.jpeg(image, quality)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    ours = torch_photo.jpeg(planes, torch.tensor([quality]))[0].permute(1, 2, 0).numpy()
    error = np.abs(ours - expected).mean()
    assert error < min(1, 0.3 * np.abs(expected - image).mean()), error


def test_blur_is_opencvs():
    kernel = photo.blur_kernel(1.3)
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    expected = cv2.GaussianBlur(image, (13, 13), 1.3, borderType=cv2.BORDER_REPLICATE)
    ours = cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(ours - expected).max() < 1e-5


def test_without_numba_torch_renders_and_says_so():
    """The same mask; the picture within rounding."""
    code = """
import importlib.util, logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else found(name, *rest)
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.models.body import open_body
from tests.support.standin_wardrobe import Poses, wardrobe
body = open_body()
stream = SyntheticPeople(body, wardrobe(body), Poses(), seed=5, options=("mask",))
sample = stream.sample(0)
assert "numba" not in sys.modules
print(f"{sample['mask'].sum():.2f} {sample['image'].mean():.4f}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    message, numbers = done.stdout.splitlines()
    assert "numba is not installed" in message
    body = open_body()
    sample = SyntheticPeople(body, wardrobe(body), Poses(), seed=5, options=("mask",)).sample(0)
    area, level = map(float, numbers.split())
    assert area == pytest.approx(float(sample["mask"].sum()), rel=1e-3)
    assert level == pytest.approx(float(sample["image"].mean()), abs=1e-3)
