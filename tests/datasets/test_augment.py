import dataclasses

import cv2
import numpy as np
import pytest
import torch

from smpler.datasets.augment import (
    MIRRORED_ANNOTATION,
    MIRRORED_SMPL,
    Augmentation,
    augment_joints_2d,
    augment_joints_3d,
    augment_pose,
    crop_image,
    crop_reduced_image,
    sample_augmentation,
)
from smpler.datasets.human_mesh import HumanMesh, decode
from smpler.datasets.labels import Label
from smpler.utils.geometry import axis_angle_to_rotmat
from smpler.utils.image import CropWindow
from smpler.utils.joints import ANNOTATION_NAMES, KEYPOINTS_FROM_ANNOTATION, SMPL_NAMES
from tests.support.standin import GOLDEN
from tests.support.tsv_data import (
    golden_augmentations,
    jpeg,
    smooth_image,
    write_golden_set,
)

CASES = range(len(golden_augmentations()))
EXTREMES = [
    Augmentation(),
    Augmentation(flip=True),
    Augmentation(rotation=60.0),
    Augmentation(rotation=-60.0, flip=True, scale=0.75),
    Augmentation(rotation=37.0, scale=1.25),
    Augmentation(rotation=-0.01),
]
OFF_CENTRE = [(-500.0, -400.0), (2000.0, 90.0), (99.0, 5000.0), (-40.0, -40.0), (50.0, 40.0)]


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    path = write_golden_set(tmp_path_factory.mktemp("golden") / "train.yaml")
    with np.load(GOLDEN / "augment.npz") as expected:
        return HumanMesh(path, training=False), dict(expected)


@pytest.mark.parametrize("case", CASES)
def test_the_image_is_the_golden_one_to_two_grey_levels(golden, case):
    data, expected = golden
    sample = data.load(case, golden_augmentations()[case][1])
    levels = np.rint(sample["image"].numpy()[:, ::4, ::4] * 255)
    worst = np.abs(levels - expected[f"{case}.image"]).max()
    assert worst <= 2, f"{worst} grey levels"


@pytest.mark.parametrize("case", CASES)
def test_the_labels_are_the_golden_ones(golden, case):
    data, expected = golden
    key, augmentation = golden_augmentations()[case]
    sample = data.load(case, augmentation)
    chosen = list(KEYPOINTS_FROM_ANNOTATION)
    golden_labels = {
        "keypoints_2d": expected[f"{case}.joints_2d"][chosen],
        "keypoints_3d": expected[f"{case}.joints_3d"][chosen],
        **{name: expected[f"{case}.{name}"] for name in ("pose", "betas", "center", "scale")},
    }
    for name, values in golden_labels.items():
        worst = np.abs(sample[name].numpy() - values).max()
        assert worst < 1e-4, f"{name} is off by {worst:.2e}"
    assert sample["key"] == key


@pytest.mark.parametrize("case", CASES)
def test_all_24_joints_are_the_golden_ones(golden, case):
    data, expected = golden
    augmentation = golden_augmentations()[case][1]
    label = Label.parse(data.samples.label(case), "")
    ours = {
        "joints_2d": augment_joints_2d(label.joints_2d, label.center, label.scale, augmentation),
        "joints_3d": augment_joints_3d(label.joints_3d, augmentation),
    }
    for name, values in ours.items():
        worst = np.abs(values - expected[f"{case}.{name}"]).max()
        assert worst < 1e-4, f"{name} is off by {worst:.2e}"


@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("augmentation", EXTREMES)
@pytest.mark.parametrize("center", [(400.0, 300.0), (130.0, 500.0), (760.0, 40.0)])
def test_a_dot_on_a_keypoint_stays_under_it(augmentation, reduction, center):
    rng = np.random.default_rng(3)
    scale = 2.5 if reduction == 1 else 5.0
    for _ in range(3):
        dot = np.array(center) + rng.uniform(-0.3, 0.3, 2) * 200 * scale * 0.75 * np.sqrt(0.5)
        dot = np.clip(dot, 25, [775, 575])
        image = np.zeros((600, 800, 3), np.uint8)
        cv2.circle(image, np.rint(dot).astype(int).tolist(), 12, (255, 255, 255), -1)
        if reduction > 1:
            image = decode(jpeg(image), reduction)
        window = CropWindow.around(center, scale * augmentation.scale)
        if reduction == 1:
            crop = crop_image(image, window, augmentation)
        else:
            crop = crop_reduced_image(image, reduction, window, augmentation)
        joints = np.tile([*dot, 1.0], (24, 1))
        joints = augment_joints_2d(joints, np.array(center, float), scale, augmentation)
        found = np.argwhere(crop[0] > 0.5).mean(axis=0)[::-1] + 0.5  # edge to edge, 0 to 224
        expected = (joints[0, :2] + 1) * 112
        # the published rounding is up to a pixel either way, the corners' another half
        assert np.abs(found - expected).max() < 1.6, f"dot at {found}, keypoint at {expected}"


@pytest.mark.parametrize("reduction", [2, 4])
def test_the_reduced_crop_shows_what_the_full_one_shows(reduction):
    data = jpeg(smooth_image(700, 900))
    for augmentation in (*EXTREMES, Augmentation(gains=(0.6, 1.4, 1.0), rotation=20.0)):
        window = CropWindow.around((420.3, 391.8), 4.7 * augmentation.scale)
        full = crop_image(decode(data), window, augmentation)
        reduced = crop_reduced_image(decode(data, reduction), reduction, window, augmentation)
        mean = 255 * np.abs(full - reduced).mean()
        assert mean < 2, f"{mean:.2f} grey levels apart under {augmentation}"


@pytest.mark.parametrize("augmentation", [*EXTREMES, Augmentation(rotation=1e-6)])
@pytest.mark.parametrize("center", OFF_CENTRE)
def test_no_box_and_no_rotation_crashes(augmentation, center):
    image = np.full((80, 100, 3), 255, np.uint8)
    for scale in (0.001, 0.3, 2.0):
        window = CropWindow.around(center, scale * augmentation.scale)
        crop = crop_image(image, window, augmentation)
        reduced = crop_reduced_image(image[::2, ::2], 2, window, augmentation)
        for result in (crop, reduced):
            assert result.shape == (3, 224, 224) and result.dtype == np.float32
            assert 0 <= result.min() <= result.max() <= 1
        if np.max(np.abs(np.array(center) - 50)) > 400:
            assert crop.max() == 0, "a box that misses the photo is black"


def test_flipping_twice_is_identity():
    rng = np.random.default_rng(0)
    pose, joints = rng.normal(0, 1, 72), rng.normal(0, 1, (24, 4))
    joints[14] = 0, 0, 0, 1
    flip = Augmentation(flip=True)
    assert np.allclose(augment_pose(augment_pose(pose, flip), flip), pose, atol=1e-15)
    assert np.allclose(augment_joints_3d(augment_joints_3d(joints, flip), flip), joints)


def test_left_and_right_swap_by_name():
    for names, mirror in ((ANNOTATION_NAMES, MIRRORED_ANNOTATION), (SMPL_NAMES, MIRRORED_SMPL)):
        for name, other in zip(names, [names[i] for i in mirror], strict=True):
            assert other == name.translate(str.maketrans("LR", "RL")) if name[1] == "_" else name


def test_the_pose_turns_with_the_joints():
    """The posed skeleton of the augmented pose is the augmented skeleton, flip included."""
    rng = np.random.default_rng(1)
    pose = np.concatenate([[3.0, 0.2, -0.3], rng.normal(0, 0.4, 69)])
    for augmentation in EXTREMES:
        rotmat, turned = (
            axis_angle_to_rotmat(torch.from_numpy(p).reshape(24, 3))
            for p in (pose, augment_pose(pose, augmentation))
        )
        angle = -np.deg2rad(augmentation.rotation)
        turn = torch.tensor(
            [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        )
        expected = rotmat.clone()
        expected[0] = turn @ rotmat[0]
        if augmentation.flip:
            mirror = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))
            expected = mirror @ expected[MIRRORED_SMPL] @ mirror
        worst = (turned - expected).abs().max()
        assert worst < 1e-6, f"{worst:.1e} under {augmentation}"


def test_augmentations_have_the_published_distribution():
    rng = np.random.default_rng(0)
    drawn = [sample_augmentation(rng) for _ in range(20000)]
    rotation = np.array([a.rotation for a in drawn])
    scale = np.array([a.scale for a in drawn])
    gains = np.array([a.gains for a in drawn])
    turned = rotation[rotation != 0]
    numbers = {
        "flipped": (np.mean([a.flip for a in drawn]), 0.5),
        "upright": (1 - len(turned) / len(drawn), 0.6),
        "at the limit of 60 degrees": (np.mean(np.abs(turned) == 60), 0.0455),
        "spread of rotations within": (np.std(turned[np.abs(turned) < 60]) / 30, 0.880),
        "smallest scale": (np.mean(scale == 0.75), 0.159),
        "largest scale": (np.mean(scale == 1.25), 0.159),
        "mean gain": (gains.mean(), 1.0),
        "spread of gains": (gains.std(), 0.8 / np.sqrt(12)),
    }
    for name, (found, expected) in numbers.items():
        assert abs(found - expected) < 0.012, f"{name}: {found:.3f}, not {expected:.3f}"
    assert np.abs(np.corrcoef(gains.T) - np.eye(3)).max() < 0.03
    assert 0.6 <= gains.min() <= gains.max() <= 1.4 and np.abs(rotation).max() == 60


def test_gains_brighten_and_clip():
    image = np.full((300, 300, 3), (100, 150, 250), np.uint8)
    augmentation = Augmentation(gains=(0.6, 1.4, 1.4))
    window = CropWindow.around((150.0, 150.0), 1.0)
    for crop in (
        crop_image(image, window, augmentation),
        crop_reduced_image(image, 1, window, augmentation),
    ):
        assert np.allclose(crop[:, 100, 100] * 255, [60, 210, 255], atol=1e-3), crop[:, 100, 100]


def test_an_augmentation_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Augmentation().flip = True
