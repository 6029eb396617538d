"""Photos of every kind, with EXIF data."""

import errno
import io

import numpy as np
import PIL.Image
import pytest

from smpler.utils.image import Photo, read_photo
from tests.fuzz.harness import EXAMPLES, Reader, check_by_examples

KINDS = {
    "JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "P", "I;16"), "TIFF": ("RGB", "F", "I;16"),
    "WEBP": ("RGB", "RGBA"), "GIF": ("P",), "BMP": ("RGB",), "PPM": ("RGB",),
}  # fmt: skip


def photos(kind: str) -> list[bytes]:
    """Small ones of each mode, some of them with the data of a camera."""
    rng = np.random.default_rng(0)
    files = []
    for mode in KINDS[kind]:
        if mode == "F":
            image = PIL.Image.fromarray(rng.random((20, 24), np.float32))
        elif mode == "I;16":
            image = PIL.Image.fromarray(rng.integers(0, 2**16, (20, 24)).astype(np.uint16))
        else:
            colors = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            image = PIL.Image.fromarray(colors).convert(mode)
        exif = PIL.Image.Exif()
        exif[274] = 6
        exif.get_ifd(34665)[41989] = 35  # focal length of a 35 mm film
        for options in ({}, {"exif": exif}):
            file = io.BytesIO()
            image.save(file, kind, **options)
            files.append(file.getvalue())
    return files


def is_picture(photo: Photo, _) -> str | None:
    """Pixels of a damaged photo may be any; their array is a picture."""
    image, focal_length = photo.image, photo.focal_length
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        return f"a picture is {image.dtype} {image.shape}"
    if focal_length is not None and not 0 < focal_length < 1e7:
        return f"a focal length is {focal_length}"
    return None


SECONDS = 20.0
"""A damaged header may say 200 megapixels, which are read."""
READERS = [
    Reader(
        kind, f".{kind.lower()}", lambda kind=kind: photos(kind), read_photo, is_picture, SECONDS
    )
    for kind in KINDS
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_photos_are_pictures_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_photo_of_numbers_that_are_not_finite_is_refused(value, tmp_path):
    values = np.full((4, 6), 0.5, np.float32)
    values[2, 3] = value
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif was not read: some of its values are NaN or inf"):
        read_photo(tmp_path / "a.tif")


ERRORS = {
    "type": (TypeError("'IFDRational' object cannot be"), r"it is damaged \(TypeError\)"),
    "seek": (OSError(errno.EINVAL, "Invalid argument"), r"it is damaged \(OSError\)"),
    "memory": (MemoryError(), "it needs more memory than there is"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_whatever_pillow_raises_is_one_sentence(name, tmp_path, monkeypatch):
    error, said = ERRORS[name]

    def fail(*_):
        raise error

    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr("smpler.utils.image._to_rgb", fail)
    with pytest.raises(ValueError, match=rf"a\.png was not read: {said}; give another photo"):
        read_photo(tmp_path / "a.png")
