import subprocess
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from smpler.datasets.engine.stream import OPTIONS, SyntheticPeople, validation_set
from smpler.datasets.human_mesh import HumanMesh
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.rasterizer import rasterize
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES
from smpler.utils.paths import ROOT
from tests.support.standin_wardrobe import Poses, wardrobe
from tests.support.tsv_data import write_random_set

NUM = 16
AROUND = {
    "Ankle": ("Knee", "Ankle", "Foot"),
    "Knee": ("Hip", "Knee"),
    "Hip": ("Hip", "Pelvis", "Spine1"),
    "Wrist": ("Elbow", "Wrist", "Hand"),
    "Elbow": ("Shoulder", "Elbow"),
    "Shoulder": ("Shoulder", "Collar", "Spine3"),
    "Neck": ("Neck", "Spine3", "L_Collar", "R_Collar", "Head"),
    "Head": ("Head", "Neck"),
}
"""Keypoint -> the parts of the body round it; sides are added."""


@pytest.fixture(scope="module")
def body():
    return open_body()


@pytest.fixture(scope="module")
def clothes(body):
    return wardrobe(body)


@pytest.fixture(scope="module")
def stream(body, clothes) -> SyntheticPeople:
    return SyntheticPeople(body, clothes, Poses(), seed=3, options=OPTIONS)


@pytest.fixture(scope="module")
def samples(stream) -> list[dict]:
    return [stream.sample(index) for index in range(NUM)]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a if k != "key"
    )


def posed(body, sample: dict):
    return SMPL(body)(sample["pose"][None], sample["betas"][None])


def test_a_sample_has_the_keys_types_and_shapes_of_human_mesh(samples, tmp_path):
    reference = HumanMesh(write_random_set(tmp_path / "train.yaml", 1), training=True)[0]
    assert samples[0].keys() - set(OPTIONS) == reference.keys()
    for key, value in reference.items():
        ours = samples[0][key]
        assert type(ours) is type(value), key
        if isinstance(value, torch.Tensor):
            assert (ours.shape, ours.dtype) == (value.shape, value.dtype), key
    for sample in samples:
        assert sample["image"].min() >= 0 and sample["image"].max() <= 1
        assert sample["image"].std() > 0.02, sample["index"]


def test_pose_and_betas_are_those_of_the_rendered_body(body, stream, samples):
    for index, sample in enumerate(samples):
        rendered = stream.renderer.render(stream.scene(index)).vertices
        vertices = posed(body, sample).vertices[0].double().numpy()
        offset = rendered - vertices
        error = np.abs(offset - offset.mean(axis=0)).max()
        assert error < 1e-5, f"{1000 * error:.4f} mm"
        assert offset[:, 2].mean() > 0.5, "behind the camera"


def test_keypoints_3d_are_the_body_layers(body, samples):
    for sample in samples:
        answer = posed(body, sample)
        expected = answer.keypoints_3d[0] - answer.pelvis[0]
        error = (sample["keypoints_3d"][:, :3] - expected).abs().max().item()
        assert error < 1e-4, f"{1000 * error:.3f} mm"
        assert (sample["keypoints_3d"][:, 3] == 1).all()


def test_keypoints_2d_are_the_projection_of_keypoints_3d(stream, samples):
    """Through a pinhole, to less than a hundredth of a pixel; nothing is rounded to pixels."""
    for index, sample in enumerate(samples):
        scene = stream.scene(index)
        vertices = stream.renderer.render(scene).vertices.astype(np.float64)
        pelvis = stream.people.body.h36m_regressor[0].astype(np.float64) @ vertices
        x, y, z = (sample["keypoints_3d"][:, :3].numpy() + pelvis).T
        focal, (cx, cy) = scene.framing.focal, scene.framing.center
        expected = np.stack([cx + focal * x / z, cy + focal * y / z], axis=1)
        pixels = (sample["keypoints_2d"][:, :2].numpy() + 1) / 2 * CROP_SIZE
        assert np.abs(pixels - expected).max() < 0.01
        assert np.abs(pixels - np.round(pixels)).max() > 0.05


def test_keypoints_lie_on_their_own_body_parts(stream, samples):
    """Where the surface in front of a keypoint is near it, it is that of the right limb."""
    tested = 0
    for index, sample in enumerate(samples):
        vertices = stream.renderer.render(stream.scene(index)).vertices
        pelvis = stream.people.body.h36m_regressor[0] @ vertices
        depth = sample["keypoints_3d"][:, 2].numpy() + pelvis[2]
        pixels = ((sample["keypoints_2d"][:, :2] + 1) / 2 * CROP_SIZE).floor().long().numpy()
        for name, (column, row), z in zip(KEYPOINT_NAMES, pixels, depth, strict=True):
            if not (0 <= column < CROP_SIZE and 0 <= row < CROP_SIZE):
                continue
            if sample["mask"][row, column] < 1 or abs(sample["depth"][row, column] - z) > 0.13:
                continue
            side, _, joint = name.rpartition("_")
            allowed = {f"{side}_{part}" for part in AROUND[joint]} | set(AROUND[joint])
            found = SMPL_NAMES[sample["parts"][row, column] - 1]
            assert found in allowed, f"sample {index}: {name} on {found}"
            tested += 1
    assert tested > 6 * NUM, tested


def test_mask_is_the_share_of_the_subject_and_alpha_that_of_all_actors(stream):
    """A white instead of a black background shows through exactly where alpha is less than 1."""
    for index in range(4):
        scene = stream.scene(index)
        no_ground = np.append(scene.ground[:3], 1e6)
        scene = replace(scene, ground=no_ground, light=replace(scene.light, detail=0))
        pictures = []
        for value in (0, 1):
            stream.renderer.panoramas, kept = (
                [(np.full((4, 8, 3), 255, np.uint8), np.float32(value))] * 9,
                stream.renderer.panoramas,
            )
            pictures.append(stream.renderer.render(scene))
            stream.renderer.panoramas = kept
        through = pictures[1].light - pictures[0].light
        alpha = pictures[0].alpha
        assert np.abs(through - (1 - alpha)[..., None]).max() < 1e-5
        alone = stream.renderer.render(replace(scene, actors=scene.actors[:1]))
        assert (alone.mask == alone.alpha).all() and 0.02 < alone.mask.mean() < 0.9
        assert (pictures[0].mask <= alone.mask).all() and (pictures[0].mask <= alpha).all()


def test_depth_is_that_of_the_torch_rasteriser(stream):
    """Of the bare body, so that one rule of culling holds; at the four samples of each pixel."""
    for index in range(3):
        scene = stream.scene(index)
        bare = replace(scene.actors[0], parts=scene.actors[0].parts[:1], hiding=())
        rendering = stream.renderer.render(replace(scene, actors=(bare,)))
        focal, center = scene.framing.focal, scene.framing.center
        x, y, z = rendering.vertices.T
        points = np.stack([2 * (center[0] + focal * x / z), 2 * (center[1] + focal * y / z), z], 1)
        faces = torch.from_numpy(stream.people.body.faces)
        size = 2 * CROP_SIZE
        points = torch.from_numpy(points.astype(np.float32))[None]
        depth = rasterize(points, faces, size, size, perspective=True).depth[0].numpy()
        nearest = depth.reshape(CROP_SIZE, 2, CROP_SIZE, 2).min(axis=(1, 3))
        seen = np.isfinite(nearest)
        assert (seen == (rendering.mask > 0)).mean() > 0.9999
        both = seen & (rendering.mask > 0)
        error = np.abs(nearest[both] - rendering.depth[both])
        assert np.quantile(error, 0.999) < 1e-4, f"{1000 * np.quantile(error, 0.999):.3f} mm"


def test_nothing_is_seen_beyond_the_photos_borders(stream, samples):
    beyond = 0
    for index, sample in enumerate(samples):
        framing = stream.scene(index).framing
        y, x = np.mgrid[:CROP_SIZE, :CROP_SIZE] + 0.5
        outside = ~framing.inside(np.stack([x, y], axis=-1))
        assert (sample["image"][:, outside] == 0).all() and (sample["mask"][outside] == 0).all()
        places = (sample["keypoints_2d"][:, :2].numpy() + 1) / 2 * CROP_SIZE
        confidence = sample["keypoints_2d"][:, 2].numpy()
        assert (confidence == framing.inside(places)).all()
        beyond += outside.any()
    assert 0 < beyond < NUM


def test_people_stand_upright_in_validation(body, clothes):
    stream = SyntheticPeople(body, clothes, Poses(), split="val")
    for index in range(8):
        sample = stream.sample(index)
        y = dict(zip(KEYPOINT_NAMES, sample["keypoints_3d"][:, 1].tolist(), strict=True))
        assert y["Head"] < y["R_Hip"] - 0.3 and y["R_Hip"] < y["R_Ankle"] - 0.3, y


def test_a_sample_depends_on_seed_split_and_index_alone(body, clothes, stream, samples):
    again = SyntheticPeople(body, clothes, Poses(), seed=3, options=OPTIONS)
    for index in (5, 2, 5):
        assert same(again.sample(index), samples[index])
    assert not same(stream.sample(1), samples[2])
    other = SyntheticPeople(body, clothes, Poses(), seed=4, options=OPTIONS)
    assert not torch.equal(other.sample(2)["image"], samples[2]["image"])


@pytest.mark.parametrize("num_workers,batch_size,world_size", [(0, 4, 1), (2, 3, 1), (2, 2, 2)])
def test_workers_ranks_and_batches_share_the_same_samples(
    body, clothes, samples, num_workers, batch_size, world_size
):
    seen = {}
    for rank in range(world_size):
        stream = SyntheticPeople(
            body, clothes, Poses(), "train", 3, OPTIONS, rank=rank, world_size=world_size
        )
        loader = DataLoader(stream, batch_size=batch_size, num_workers=num_workers)
        for batch in islice(loader, NUM // batch_size // world_size):
            for row, index in enumerate(batch["index"].tolist()):
                assert index not in seen, index
                seen[index] = {k: v[row] for k, v in batch.items()}
    for index in range(8):
        assert same(seen[index] | {"key": ""}, samples[index] | {"key": ""}), index


def test_epochs_go_on_where_the_last_one_ended(stream, samples):
    dataset = stream.first(5)
    assert len(dataset) == 5 and same(dataset[2], samples[2])
    dataset.set_epoch(1)
    assert same(dataset[0], samples[5])
    with pytest.raises(IndexError, match="Sample 5 of 5"):
        dataset[5]


def test_validation_is_fixed_and_sees_what_training_does_not(body, clothes, stream):
    held_out = validation_set(body, wardrobe=clothes, poses=Poses())
    assert len(held_out) == 2000
    assert held_out[7]["key"] == "val/2024/7"
    ours, theirs = held_out.stream.people, stream.people
    names = [{c.garment.name for c in people.clothing["outfit"]} for people in (ours, theirs)]
    assert names[0].isdisjoint(names[1])
    assert {s.name for s in ours.skins}.isdisjoint({s.name for s in theirs.skins})
    places = [{p.name for p in s.panoramas} for s in (held_out.stream, stream)]
    assert places[0] and places[0].isdisjoint(places[1])


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"split": "test"}, "split is 'test', but train or val"),
        ({"options": ("masks",)}, "'masks' is no option; there are mask, depth"),
        ({"rank": 2, "world_size": 2}, "rank is 2, but 0 to 1"),
    ],
)
def test_a_wrong_argument_is_named(body, clothes, arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticPeople(body, clothes, Poses(), **arguments)


def test_a_body_that_the_wardrobe_does_not_fit_is_refused(standin_body, clothes):
    with pytest.raises(ValueError, match="the data engine runs on the open body"):
        SyntheticPeople(standin_body, clothes, Poses())


def test_the_demo_does_not_import_numba():
    code = "import sys, demo, main; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
