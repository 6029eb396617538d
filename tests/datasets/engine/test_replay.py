import numpy as np
import pytest
import torch

from smpler.datasets.engine.replay import POOLED, DeviceBatches, Pool
from smpler.datasets.engine.stream import SyntheticPeople, SyntheticSamples
from smpler.datasets.mirroring import mirrored_batch
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from tests.support.standin_wardrobe import Poses, wardrobe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def samples() -> SyntheticSamples:
    body = open_body()
    return SyntheticPeople(body, wardrobe(body), Poses(), seed=5).first(6)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_samplers_samples(samples, num_workers):
    samples.set_epoch(1)
    batches = list(DeviceBatches(samples, CPU, num_workers)([[4, 1], [0, 5]]))
    assert [batch["index"].tolist() for batch in batches] == [[10, 7], [6, 11]]
    expected = samples[4]
    for name in ("keypoints_2d", "keypoints_3d", "pose", "betas"):
        assert torch.allclose(batches[0][name][0], expected[name], atol=2e-5), name
    assert 255 * (batches[0]["image"][0] - expected["image"]).abs().mean() < 1
    samples.set_epoch(0)


def test_a_batch_is_what_was_rendered_for_it_and_crops_seen_before(samples):
    """Half of each batch is rendered; labels belong together, mirrored or not."""
    batches = list(DeviceBatches(samples, CPU, 0, fresh=0.5)([[0, 1, 2, 3], [4, 5, 0, 1]]))
    smpl = SMPL(samples.stream.people.body)
    rendered = torch.stack([samples[index]["pose"] for index in (0, 1, 4, 5)])
    everyone = torch.cat([rendered, mirrored_poses(rendered)])
    for number, batch in enumerate(batches):
        assert batch["image"].shape == (4, 3, 224, 224) and batch["image"].max() <= 1
        assert torch.allclose(batch["pose"][:2], rendered[2 * number : 2 * number + 2], atol=1e-5)
        body = smpl(batch["pose"], batch["betas"])
        keypoints = body.keypoints_3d - body.pelvis[:, None]
        assert torch.allclose(keypoints, batch["keypoints_3d"][..., :3], atol=1e-5)
        known = everyone if number else torch.cat([rendered[:2], mirrored_poses(rendered[:2])])
        distance = torch.cdist(batch["pose"], known).amin(dim=1)
        assert distance.max() < 1e-4, "a pose that nobody rendered before"


def test_a_pool_smaller_than_a_batch_keeps_images_and_labels_together():
    pool = Pool(2, CPU, seed=0)
    batch = dot_image(5)
    batch["betas"] = torch.arange(5.0)[:, None].expand(5, 10)
    batch["image"] = batch["betas"][:, :1, None, None].expand(5, 3, 224, 224) / 255
    pool.add(batch)
    assert len(pool) == 2 and set(pool.kept["betas"][:, 0].tolist()) == {3, 4}
    assert torch.equal(pool.kept["image"][:, 0, 0, 0].float(), pool.kept["betas"][:, 0])


def test_a_mirrored_crop_keeps_the_dot_on_its_keypoint():
    pool = Pool(1, CPU, seed=0)
    pool.add(dot_image())
    columns = []
    for _ in range(20):
        batch = pool.draw(1)
        column = int((batch["keypoints_2d"][0, 13, 0] + 1) / 2 * 224)
        image = batch["image"][0].mean(dim=0)
        if image[0].max() == 0 and (image > 0).sum() == 25:  # no patch
            assert (image[98:103, column - 2 : column + 3] > 0.8).all()
            columns.append(column)
    assert set(columns) == {40, 183}


def test_the_oldest_crops_leave_the_pool():
    pool = Pool(4, CPU, seed=0)
    for number in range(3):
        batch = dot_image(2)
        batch["betas"][:] = number
        pool.add(batch)
    assert len(pool) == 4 and pool.kept["betas"][:, 0].tolist() == [2, 2, 1, 1]


def test_the_same_seed_draws_the_same(samples):
    first, second = (
        list(DeviceBatches(samples, CPU, 0, fresh=0.5, seed=3)([[0, 1], [2, 3]])) for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_mirror_twice_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(3, 3, 8, 8, generator=generator),
        "keypoints_2d": torch.rand(3, 14, 3, generator=generator),
        "keypoints_3d": torch.rand(3, 14, 4, generator=generator),
        "pose": torch.rand(3, 72, generator=generator),
        "betas": torch.rand(3, 10, generator=generator),
    }
    flip = torch.tensor([True, False, True])
    once = mirrored_batch(batch, flip)
    twice = mirrored_batch(once, flip)
    for name, value in batch.items():
        assert torch.allclose(twice[name], value), name
        assert torch.equal(once[name][1], value[1])
        assert torch.equal(once[name][0], value[0]) == (name == "betas")


def mirrored_poses(poses: torch.Tensor) -> torch.Tensor:
    return mirrored_batch({"pose": poses}, torch.ones(len(poses), dtype=torch.bool))["pose"]


def dot_image(count: int = 1) -> dict:
    """Dark crops with a bright spot at column 40, where the labels put the top of the head."""
    image = torch.zeros(count, 3, 224, 224)
    image[..., 98:103, 38:43] = 1
    batch = {"image": image, "keypoints_2d": torch.zeros(count, 14, 3)}
    batch["keypoints_2d"][:, 13, 0] = (40.5 / 224) * 2 - 1
    batch |= {"keypoints_3d": torch.zeros(count, 14, 4), "pose": torch.zeros(count, 72)}
    batch["betas"] = torch.zeros(count, 10)
    assert set(POOLED) < set(batch)
    return batch


def test_gains_and_patches_stay_within_an_image():
    pool = Pool(8, CPU, seed=0)
    pool.add(dot_image(8) | {"image": torch.full((8, 3, 224, 224), 0.5)})
    images = pool.draw(64)["image"].numpy()
    assert images.min() >= 0 and images.max() <= 1
    sizes = [
        int((image != np.median(image, axis=(1, 2), keepdims=True)).any(0).sum())
        for image in images
    ]
    assert 8 < np.count_nonzero(sizes) < 34  # three tenths have a patch
    assert max(sizes) <= 90 * 90 and min(size for size in sizes if size) >= 22 * 22
