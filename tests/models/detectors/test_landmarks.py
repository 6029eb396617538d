import sys

import cv2
import numpy as np
import pytest
import torch

from scripts.build.blazepose import person_crop
from smpler.models.detectors import Look
from smpler.models.detectors import landmarks as module
from smpler.models.detectors.landmarks import (
    EXCHANGED,
    FACE,
    INPUT_SIDE,
    LANDMARK_NAMES,
    PARTS,
    SEEN,
    BlazePoseLandmarkDetector,
    averaged,
    cut,
    view_matrix,
)
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.models.inference.backends import with_fast_looks
from smpler.utils.image import read_image
from smpler.utils.joints import KEYPOINT_NAMES, mirrored
from smpler.utils.paths import SAMPLES
from tests.support import standin
from tests.support.samples import TORSO, WOMAN

HIP = np.array([285.0, 330.0])
"""Near the hips of the person in samples/im01.png, pixels."""


@pytest.fixture(scope="module")
def detector() -> BlazePoseLandmarkDetector:
    return BlazePoseLandmarkDetector.load()


def test_the_shipped_network_is_the_original(detector):
    golden = np.load(standin.GOLDEN / "blazepose_full.npz")
    with torch.no_grad():
        values, presence = detector.network(person_crop())
    error = (
        np.abs(values[0].numpy() - golden["landmarks"]).max() / np.abs(golden["landmarks"]).max()
    )
    assert error < 1e-4, f"{error} of the largest value"
    assert abs(presence.sigmoid().item() - golden["score"].item()) < 1e-4


def test_the_heavy_network_is_the_original_to_rounding():
    golden = np.load(standin.GOLDEN / "blazepose_heavy.npz")
    network = BlazePoseLandmarkDetector.load(size="heavy").network
    with torch.no_grad():
        values, presence = network(person_crop())
    moved = np.abs(values[0].numpy() - golden["landmarks"])[:33]
    away = np.linalg.norm(moved[:, :2], axis=1)
    assert np.median(away) < 0.5 and away.max() < 2, np.round(away, 2)
    assert np.median(moved[:, 2]) < 1, np.round(moved[:, 2], 2)
    assert abs(presence.sigmoid().item() - golden["score"].item()) < 1e-3


def test_another_size_gives_one_sentence():
    with pytest.raises(ValueError, match="landmarks is 'lite'; choose one of full, heavy."):
        BlazePoseLandmarkDetector.load(size="lite")


def test_names_are_the_networks_33_and_have_mirror_images(detector):
    assert detector.names == LANDMARK_NAMES and len(set(detector.names)) == 33
    sides = [name[:2] for name in detector.names]
    assert sides.count("L_") == sides.count("R_") == 16
    order = np.array(mirrored(detector.names))
    assert (order[order] == np.arange(33)).all() and order[0] == 0
    # where MediaPipe lists them
    places = {"R_Ear": 8, "L_Shoulder": 11, "R_Wrist": 16, "R_Hip": 24, "R_FootIndex": 32}
    assert {name: detector.names.index(name) for name in places} == places
    assert (
        len(SEEN) == 12 and {*SEEN, *FACE} < set(detector.names) and set(SEEN) < set(KEYPOINT_NAMES)
    )


def place_in_photo(name: str, turns: int = 0):
    """A sample, turned left by so many quarters, and where its best person is."""
    photo = read_image(SAMPLES / name)
    person = BlazePosePersonDetector.load().detect(photo, max_people=1)[0]
    hip, shoulders = np.array(person.hip_center), np.array(person.shoulder_center)
    turned = photo
    for _ in range(turns):
        hip, shoulders = ((x[1], turned.shape[1] - x[0]) for x in (hip, shoulders))
        turned = np.rot90(turned)
    hip, shoulders = np.array(hip), np.array(shoulders)
    return np.ascontiguousarray(turned), hip, shoulders - hip, person.box[2] / 1.9


def test_landmarks_are_found_upright_and_turned(detector):
    found = {}
    for turns in (0, 1):
        photo, *place = place_in_photo("im01.png", turns)
        found[turns] = detector.find(photo, *place)
    errors = [np.linalg.norm(found[0].keypoints[detector.names.index(x)] - WOMAN[x]) for x in WOMAN]
    assert np.mean(errors) < 0.12 * TORSO, dict(zip(WOMAN, np.round(errors), strict=True))
    width = read_image(SAMPLES / "im01.png").shape[1]
    x, y = found[0].keypoints.T
    turned = np.column_stack([y, width - x])
    assert np.abs(found[1].keypoints - turned).max() < 0.05 * TORSO
    assert found[0].score > 0.9 and found[0].visibility.max() > 0.9


@pytest.mark.parametrize("up", [(0.0, -1.0), (0.4, -0.9)])
def test_the_last_look_at_a_mirrored_picture_gives_the_mirrored_landmarks(
    up, detector, monkeypatch
):
    """Pixel x of the picture is pixel width - 1 - x of the mirrored one."""
    monkeypatch.setattr(module, "NUM_LOOKS", 1)  # the look before it has one side only
    photo = read_image(SAMPLES / "im01.png")
    last, hip, across = photo.shape[1] - 1, HIP, np.array([-1.0, 1.0])
    # pixels of an upright view fall on pixels of the photo; turned, they are sampled between them
    radius = INPUT_SIDE / module.VIEW_PER_RADIUS * 2
    found = detector.find(photo, hip, np.array(up), radius)
    mirror = np.ascontiguousarray(photo[:, ::-1])
    mirror_hip = np.array([last, 0.0]) + across * hip
    of_mirror = detector.find(mirror, mirror_hip, across * np.array(up), radius)
    order = list(mirrored(detector.names))
    away = np.abs(np.array([last, 0.0]) + across * of_mirror.keypoints[order] - found.keypoints)
    limit = 1e-3 if up[0] == 0 else 0.1
    assert away.max() < limit, f"{away.max()} pixels"
    assert np.abs(of_mirror.visibility[order] - found.visibility).max() < limit
    assert abs(of_mirror.score - found.score) < 1e-4


def test_two_looks_are_averaged_and_exchanged_sides_put_right():
    rng = np.random.default_rng(0)
    plain = np.column_stack([rng.uniform(20, 230, (39, 3)), rng.normal(0, 1, (39, 2))])
    other = plain + rng.normal(0, 2, plain.shape)
    of_mirror = other[EXCHANGED] * [-1, 1, 1, 1, 1] + [INPUT_SIDE, 0, 0, 0, 0]
    arms_only = of_mirror.copy()
    arms_only[PARTS[1]] = of_mirror[EXCHANGED][PARTS[1]]
    for seen in (of_mirror, of_mirror[EXCHANGED], arms_only):
        assert np.allclose(averaged(plain, seen), (plain + other) / 2)


def test_one_look_can_be_asked_for_and_is_near_two(detector):
    photo, *place = read_image(SAMPLES / "im01.png"), HIP, np.array([0.0, -1.0]), 200.0
    one = BlazePoseLandmarkDetector.load(two_looks=False).find(photo, *place)
    two = detector.find(photo, *place)
    away = np.linalg.norm(one.keypoints - two.keypoints, axis=1)
    assert 0 < np.median(away) < 0.05 * TORSO, np.round(away, 1)


def test_nobody_is_found_where_nobody_is(detector):
    grey = np.full((300, 300, 3), 128, np.uint8)
    assert detector.find(grey, np.array([150.0, 150.0]), np.array([0.0, -50.0]), 100.0) is None


@pytest.mark.parametrize("enlarged", [1, 8])
def test_a_view_shows_the_same_at_any_size_of_photo(enlarged):
    """A smooth picture, and on the large one noise of single pixels, which must average out."""
    x, y = np.meshgrid(np.arange(300 * enlarged), np.arange(300 * enlarged))
    smooth = 128 + 80 * np.sin((x + 0.5) / enlarged / 15) * np.cos((y + 0.5) / enlarged / 11)
    checks = 40 * (-1.0) ** (x + y) if enlarged > 1 else 0
    photo = (smooth + checks).round().astype(np.uint8)[..., None].repeat(3, axis=2)
    center, up = np.array([140.0, 160.0]), np.array([20.0, -60.0])
    large = (center + 0.5) * enlarged - 0.5
    view = cut(photo, view_matrix(large, up * enlarged, 200.0 * enlarged))
    small = np.indices((256, 256))[::-1].reshape(2, -1).T
    back = cv2.invertAffineTransform(view_matrix(center, up, 200.0))
    x, y = (small @ back[:, :2].T + back[:, 2]).T
    expected = 128 + 80 * np.sin((x + 0.5) / 15) * np.cos((y + 0.5) / 11)
    inside = (x > 2) & (x < 297) & (y > 2) & (y < 297)
    error = np.abs(view[..., 0].ravel() - expected)[inside]
    assert error.mean() < 3 and error.max() < 12, (error.mean(), error.max())


def test_a_very_wide_photo_is_sampled_where_the_view_is():
    narrow = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
    wide = np.zeros((300, 40_000, 3), np.uint8)
    wide[:, 35_000:35_900] = narrow
    up = np.array([0.1, -1.0])
    for place in ((450.0, 150.0), (20.0, 10.0)):
        center = np.array(place)
        expected = cut(narrow, view_matrix(center, up, 250.0)).astype(int)
        found = cut(wide, view_matrix(center + [35_000, 0], up, 250.0)).astype(int)
        assert np.abs(found - expected).max() <= 2
    assert not cut(wide, view_matrix(np.array([-5000.0, 0.0]), up, 250.0)).any()


@pytest.mark.slow
def test_onnx_runtime_sees_the_same_landmarks_in_any_batch(detector):
    fast = with_fast_looks(BlazePoseLandmarkDetector.load())
    photo, *place = place_in_photo("im01.png")
    looks = [Look(photo, place[0] + 5.0 * shift, *place[1:]) for shift in range(3)]
    for count in (1, 2, 3):
        pairs = zip(detector.find_all(looks[:count]), fast.find_all(looks[:count]), strict=True)
        for one, other in pairs:
            assert np.abs(one.keypoints - other.keypoints).max() < 0.05
            assert np.abs(one.visibility - other.visibility).max() < 1e-3
    followed = fast.follow(looks[:2])
    assert len(followed) == 2 and followed[0].score > 0.9


def test_onnx_runtime_that_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="backend onnxruntime: onnxruntime is missing"):
        with_fast_looks(BlazePoseLandmarkDetector.load())
