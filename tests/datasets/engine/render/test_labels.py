import numpy as np
import torch

from smpler.datasets.engine.framing import Framing, sample_framing
from smpler.datasets.engine.render.labels import (
    OPTIONS,
    JointRegressor,
    inside_pixels,
    keypoints,
    labelled,
)
from smpler.datasets.engine.render.result import RenderedBatch
from smpler.datasets.engine.render.scene_batch import OF_FRAMING
from smpler.utils.image import CROP_SIZE
from smpler.utils.joints import H36M_NAMES, KEYPOINTS_FROM_H36M

NUM = 40


def random_framings() -> tuple[list[Framing], np.ndarray]:
    """Crops of training, turned and cut off, and 17 joints (n, 17, 3) before each camera."""
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.4, (NUM, 17, 3)) + [0, 0, 3]
    return [sample_framing(rng, points, True) for points in joints], joints


def batch_of(framings: list[Framing]) -> dict[str, torch.Tensor]:
    rows = {name: [getattr(framing, name) for framing in framings] for name in OF_FRAMING}
    rows |= {
        "focal": [[framing.focal, 215.0] for framing in framings],
        "pose": np.zeros((len(framings), 72)),
        "subject_betas": np.zeros((len(framings), 10)),
    }
    return {name: torch.from_numpy(np.array(values)) for name, values in rows.items()}


def test_keypoints_are_the_framings_projection_to_the_last_bit():
    framings, joints = random_framings()
    ours_2d, ours_3d = keypoints(torch.from_numpy(joints), batch_of(framings))
    for number, (framing, mine) in enumerate(zip(framings, joints, strict=True)):
        points = mine[list(KEYPOINTS_FROM_H36M)]
        places = framing.project(points)
        expected = np.column_stack([places / CROP_SIZE * 2 - 1, framing.inside(places)])
        assert np.array_equal(ours_2d[number].numpy(), expected)
        centered = points - mine[H36M_NAMES.index("Pelvis")]
        assert np.array_equal(ours_3d[number].numpy(), np.column_stack([centered, np.ones(14)]))
    assert 0 < ours_2d[..., 2].mean() < 1, "some are beyond the photo, some are not"


def test_pixels_inside_the_photo_are_the_framings():
    framings, _ = random_framings()
    ours = inside_pixels(batch_of(framings)).numpy()
    assert all(np.array_equal(a, f.inside_pixels()) for a, f in zip(ours, framings, strict=True))
    assert any(framing.rotation for framing in framings) and 0 < ours.mean() < 1


def test_labels_of_a_batch_are_those_of_batches_of_one():
    framings, joints = random_framings()
    everyone = random_rendering()
    together = label_all(framings, joints, everyone)
    for number in range(0, NUM, 9):
        rows = slice(number, number + 1)
        one = RenderedBatch(**{name: value[rows] for name, value in vars(everyone).items()})
        alone = label_all(framings[rows], joints[rows], one)
        for name in alone:
            assert torch.equal(alone[name][0], together[name][number]), name


def test_what_is_seen_ends_at_the_photos_borders():
    framings, joints = random_framings()
    rendered = random_rendering()
    labels = label_all(framings, joints, rendered)
    inside = inside_pixels(batch_of(framings))
    for name in ("mask", "depth", "parts"):
        assert (labels[name][~inside] == 0).all(), name
        seen = inside & (rendered.mask > 0)
        assert torch.equal(labels[name][seen], getattr(rendered, name)[seen].to(labels[name]))
    assert (labels["image"].transpose(0, 1)[:, ~inside] == 0).all()
    places = ((labels["keypoints_2d"][..., :2] + 1) / 2 * CROP_SIZE).floor().long()
    for item, point in np.ndindex(NUM, 14):
        column, row = places[item, point].tolist()
        within = 0 <= column < CROP_SIZE and 0 <= row < CROP_SIZE
        expected = within and labels["mask"][item, row, column].item() > 0
        assert labels["visible"][item, point] == expected


def test_joints_are_regressed_as_by_the_whole_matrix():
    rng = np.random.default_rng(0)
    weights = rng.random((17, 60)) * (rng.random((17, 60)) < 0.05)
    vertices = rng.normal(size=(60, 3)).astype(np.float32)
    error = np.abs(JointRegressor(weights)(vertices) - weights @ vertices.astype(np.float64)).max()
    assert error < 1e-12, error


def random_rendering() -> RenderedBatch:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(NUM, CROP_SIZE, CROP_SIZE, generator=generator) - 0.5).clamp(min=0)
    return RenderedBatch(
        light=torch.rand(NUM, CROP_SIZE, CROP_SIZE, 3, generator=generator),
        alpha=mask,
        mask=mask,
        depth=torch.where(mask > 0, 2 + mask, torch.inf),
        parts=torch.where(mask > 0, (46 * mask).to(torch.uint8) + 1, 0),
        vertices=torch.zeros(NUM, 1, 3),
    )


def label_all(framings: list[Framing], joints: np.ndarray, rendered: RenderedBatch) -> dict:
    scenes = batch_of(framings)
    image, inside = rendered.light.permute(0, 3, 1, 2), inside_pixels(scenes)
    return labelled(image, rendered, inside, torch.from_numpy(joints), scenes, OPTIONS)
