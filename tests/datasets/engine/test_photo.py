import numpy as np
import pytest
import torch

from smpler.datasets.engine.photo import MIDDLE, SUBJECT_PART, Photo, develop, noise_bank
from smpler.datasets.engine.render import torch_photo
from smpler.datasets.engine.render.scene_batch import pack_photos

SIZE = 64
BANK = noise_bank()


def silhouette(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Someone dark before a bright sky, `side` pixels square; light and mask."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[:side, :side] = 1
    light = np.where(mask[..., None] > 0, 0.02, 1.0).repeat(3, axis=-1).astype(np.float32)
    return light, mask


def brightness(photo: Photo, side: int = 32) -> tuple[float, float]:
    """Mean level of the person and of the sky."""
    light, mask = silhouette(side)
    image = develop(light, mask, photo, BANK)
    return image[mask > 0].mean(), image[mask == 0].mean()


def test_exposing_for_the_subject_brightens_a_silhouette():
    plain, exposed = brightness(Photo()), brightness(Photo(metering=0.9))
    assert exposed[0] > 2 * plain[0], (plain, exposed)
    assert exposed[1] > plain[1], "the sky is overexposed instead"


def test_metering_in_full_brings_the_subject_to_the_middle():
    level, _ = brightness(Photo(metering=1.0))
    linear = ((level + 0.055) / 1.055) ** 2.4
    assert abs(linear / MIDDLE - 1) < 0.02, linear


def test_who_is_hardly_seen_is_not_exposed_for():
    side = 2
    assert (side / SIZE) ** 2 < SUBJECT_PART / 10
    plain, exposed = brightness(Photo(), side), brightness(Photo(metering=0.9), side)
    assert abs(plain[1] - exposed[1]) < 0.03, (plain, exposed)
    light, _ = silhouette(32)
    nobody = np.zeros((SIZE, SIZE), np.float32)
    difference = develop(light, nobody, Photo(metering=0.9), BANK) - develop(
        light, nobody, Photo(), BANK
    )
    assert np.abs(difference).max() == 0


@pytest.mark.parametrize("metering", [0.0, 0.5, 0.9])
def test_torch_exposes_as_numpy_does(metering):
    light, mask = silhouette(32)
    photo = Photo(metering=metering)
    expected = develop(light, mask, photo, BANK)
    found = torch_photo.develop(
        torch.from_numpy(light)[None],
        torch.from_numpy(mask)[None],
        pack_photos([photo]),
        torch.from_numpy(BANK),
    )[0].permute(1, 2, 0)
    error = np.abs(found.numpy() - expected).mean() * 255
    assert error < 1, f"{error} levels"
