import cv2
import numpy as np
import pytest
import torch

from scripts.build.blazepose import person_crop
from smpler.models.detectors.landmarks import (
    SEEN,
    BlazePoseLandmarkDetector,
    cut,
    view_matrix,
)
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.utils.image import read_image
from smpler.utils.paths import SAMPLES
from tests.support import standin
from tests.support.samples import TORSO, WOMAN


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
    errors = [np.linalg.norm(found[0].keypoints[SEEN.index(x)] - WOMAN[x]) for x in WOMAN]
    assert np.mean(errors) < 0.12 * TORSO, dict(zip(WOMAN, np.round(errors), strict=True))
    width = read_image(SAMPLES / "im01.png").shape[1]
    x, y = found[0].keypoints.T
    turned = np.column_stack([y, width - x])
    assert np.abs(found[1].keypoints - turned).max() < 0.05 * TORSO
    assert found[0].score > 0.9 and found[0].visibility.max() > 0.9


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
