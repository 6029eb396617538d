import struct
import zlib

import cv2
import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
import pytest

from smpler.utils import image
from smpler.utils.image import (
    CROP_SIZE,
    CropWindow,
    PngWriter,
    common_area,
    crop,
    read_image,
    read_photo,
    write_image,
)


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth colour picture, 60 x 40."""
    x, y = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 40))
    return np.rint(np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1)).astype(np.uint8)


def grey_of(photo: np.ndarray) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(photo).convert("L"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_common_files_are_read_as_they_were_written(suffix, photo, tmp_path):
    PIL.Image.fromarray(photo).save(tmp_path / f"a.{suffix}", quality=95)
    error = np.abs(read_image(tmp_path / f"a.{suffix}").astype(int) - photo).mean()
    assert error < 3, error


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode, photo, tmp_path):
    grey = grey_of(photo)
    suffix = {"CMYK": "jpg", "F": "tif", "I": "tif"}.get(mode, "png")
    expected, tolerance = np.repeat(grey[..., None], 3, axis=2), 2
    if mode == "I;16":
        image = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        scale = {"I": 257, "F": 1 / 255}[mode]
        image = PIL.Image.fromarray(
            (grey.astype(float) * scale).astype({"I": np.int32, "F": np.float32}[mode])
        )
    else:
        image = PIL.Image.fromarray(photo).convert(mode)
        if mode not in ("L", "LA", "1"):
            expected, tolerance = photo, 25 if mode == "P" else 6
    image.save(tmp_path / f"a.{suffix}")
    found = read_image(tmp_path / f"a.{suffix}")
    assert found.dtype == np.uint8 and found.shape == (40, 60, 3)
    error = np.abs(found.astype(int) - expected).mean()
    assert error < (128 if mode == "1" else tolerance), error


def test_16_bit_colour_is_read(photo, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), photo[..., ::-1].astype(np.uint16) * 257)
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - photo).max() <= 1


def test_transparent_pixels_are_white(tmp_path):
    PIL.Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_exif_rotation_is_applied(photo, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise
    PIL.Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_image(tmp_path / "a.jpg")
    assert found.shape == (60, 40, 3)
    assert np.abs(found.astype(int) - np.rot90(photo, -1)).mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (8000, 6000)])
def test_photos_of_any_size_are_read(size, tmp_path):
    PIL.Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (size[1], size[0], 3)


def truncated(photo: np.ndarray, suffix: str, tmp_path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    return data[: len(data) // 2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "avif"])
def test_a_file_that_is_cut_off_gives_one_sentence(suffix, photo, tmp_path):
    if suffix == "avif" and not PIL.features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(truncated(photo, suffix, tmp_path))
    with pytest.raises(ValueError, match=rf"cut\.{suffix}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def bomb() -> bytes:
    """A PNG that claims to be 60000 x 60000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"hello, no image", "is not an image"), (bomb(), "was not read")],
    ids=["empty", "text", "bomb"],
)
def test_files_that_are_no_photos_give_one_sentence(content, message, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg is missing"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_image(tmp_path)


def test_crop_side_is_one_fifth_more_than_the_longer_side_of_the_box():
    window = CropWindow.for_box((100.0, 50.0, 80.0, 200.0))
    assert (window.x, window.y, window.width, window.height) == (20, 30, 240, 240)


def test_corners_are_truncated_towards_zero_as_published():
    window = CropWindow.around((10.0, 20.3), scale=0.3)
    # 10 - 30 = -20, 10 + 30 = 40; 20.3 - 30 = -9.7 -> -9, 20.3 + 30 = 50.3 -> 50
    assert (window.x, window.y, window.width, window.height) == (-20, -9, 60, 59)


def test_photo_and_crop_coordinates_are_inverse_and_meet_at_the_edges():
    window = CropWindow(-20, 30, 240, 239)
    edges = window.to_photo(np.array([[-1.0, -1.0], [1.0, 1.0]]))
    assert np.array_equal(edges, [[-20, 30], [220, 269]])
    points = np.random.default_rng(0).uniform(-300, 300, (20, 2))
    error = np.abs(window.to_photo(window.to_crop(points)) - points).max()
    assert error < 1e-9, error


@pytest.mark.parametrize("side", [90, 224, 300, 1500])
def test_a_dot_stays_where_the_mapping_says(side):
    """Paint a soft dot at a known place of the photo and find its middle in the crop."""
    rng = np.random.default_rng(side)
    for _ in range(5):
        window = CropWindow(*rng.integers(-side // 4, side // 4, 2).tolist(), side, side)
        place = window.to_photo(rng.uniform(-0.4, 0.7, 2))
        y, x = np.mgrid[:1700, :1700] + 0.5
        near = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * (side / 40) ** 2))
        photo = np.repeat((255 * near).astype(np.uint8)[..., None], 3, axis=2)
        weight = crop(photo, window)[..., 0]
        rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE] + 0.5
        middle = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        expected = (window.to_crop(place) + 1) / 2 * CROP_SIZE
        error = np.abs(middle - expected).max()
        assert error < 0.15, (side, error)


def test_crop_is_bilinear_with_half_pixel_centres_and_black_outside(photo):
    window = CropWindow(-10, -5, 50, 50)
    padded = np.zeros((50, 50, 3))
    padded[5:45, 10:50] = photo[:40, :40]
    centres = np.clip((np.arange(CROP_SIZE) + 0.5) * 50 / CROP_SIZE - 0.5, 0, 49)
    low = np.minimum(centres.astype(int), 48)
    part = centres - low
    rows = padded[low] * (1 - part)[:, None, None] + padded[low + 1] * part[:, None, None]
    columns = rows[:, low] * (1 - part)[:, None] + rows[:, low + 1] * part[:, None]
    error = np.abs(crop(photo, window) * 255 - columns).max()
    assert error < 0.1, error


def test_a_window_beside_the_photo_is_black(photo):
    assert not crop(photo, CropWindow(500, 500, 80, 80)).any()


def test_large_windows_are_averaged_not_sampled():
    checkerboard = np.indices((1792, 1792)).sum(axis=0) % 2 * 255
    photo = np.repeat(checkerboard.astype(np.uint8)[..., None], 3, axis=2)
    error = np.abs(crop(photo, CropWindow(0, 0, 1792, 1792)) - 0.5).max()
    assert error < 0.01, error


def test_pictures_are_written_as_they_are(photo, tmp_path):
    write_image(tmp_path / "a.png", photo)
    assert np.array_equal(read_image(tmp_path / "a.png"), photo)


def test_a_large_window_is_averaged_as_a_copy_of_it_would_be(monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (900, 1300, 3), dtype=np.uint8)
    for window in (CropWindow(-200, -350, 1501, 1501), CropWindow(400, 100, 700, 700)):
        by_copy = crop(photo, window)
        monkeypatch.setattr(image, "MAX_CANVAS", 1)
        error = np.abs(crop(photo, window) - by_copy).max() * 255
        monkeypatch.undo()
        assert error < 1.01, f"{error} of 255 levels"
    assert not crop(photo, CropWindow(5000, 5000, 100_000, 100_000)).any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_exif_orientations_are_as_pillow_turns_them(orientation, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(image, "STRIP_PIXELS", 300)  # strips of five rows
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as file:
        expected = np.array(PIL.ImageOps.exif_transpose(file))
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)


def test_a_picture_written_by_strips_is_the_picture(photo, tmp_path):
    with PngWriter(tmp_path / "a.png", 60, 40) as writer:
        for top in range(0, 40, 7):
            writer.write(photo[top : top + 7])
    assert np.array_equal(read_image(tmp_path / "a.png"), photo)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], photo)


def full_frame_exif(orientation: int = 1) -> bytes:
    """What a camera writes: 28 mm, and a photo of which 36 mm have 6000 pixels."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0xA405: 28, 0xA002: 6000, 0xA003: 4000})
    return exif.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_has_its_name_and_its_cameras_focal_length(orientation, suffix, photo, tmp_path):
    path = tmp_path / f"a.{suffix}"  # 60 pixels of 36 mm: it was resized
    PIL.Image.fromarray(photo).save(path, exif=full_frame_exif(orientation))
    found = read_photo(path)
    assert found.name == path.name
    assert found.image.shape == ((40, 60, 3) if orientation == 1 else (60, 40, 3))
    assert found.focal_length == pytest.approx(28 / 36 * 60)
    assert np.array_equal(found.image, read_image(path))


def test_a_photo_without_exif_has_no_focal_length(photo, tmp_path):
    PIL.Image.fromarray(photo).save(tmp_path / "a.jpg")
    assert read_photo(str(tmp_path / "a.jpg")).focal_length is None


def test_exif_data_behind_the_pixels_are_read(photo, tmp_path):
    PIL.Image.fromarray(photo).save(tmp_path / "a.png", exif=full_frame_exif(6))
    data = (tmp_path / "a.png").read_bytes()
    start, pixels, end = (data.index(name) - 4 for name in (b"eXIf", b"IDAT", b"IEND"))
    assert start < pixels
    moved = data[:start] + data[pixels:end] + data[start:pixels] + data[end:]
    (tmp_path / "b.png").write_bytes(moved)
    found = read_photo(tmp_path / "b.png")
    assert found.image.shape == (60, 40, 3)
    assert found.focal_length == pytest.approx(28 / 36 * 60)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "block",
    [b"", b"II", b"no EXIF data at all", b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff"]
    + [full_frame_exif()[6 : 6 + length] for length in (20, 40, 60)],
)
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_a_photo_with_damaged_exif_data_is_read(block, suffix, photo, tmp_path):
    PIL.Image.fromarray(photo).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0" + block)
    found = read_photo(tmp_path / f"a.{suffix}")
    assert found.image.shape == photo.shape and found.focal_length is None


@pytest.mark.parametrize(
    ("other", "expected"), [((0, 0, 10, 10), 100), ((5, 5, 10, 10), 25), ((10, 0, 5, 5), 0)]
)
def test_common_area(other, expected):
    box = (0.0, 0.0, 10.0, 10.0)
    other = tuple(map(float, other))
    assert common_area(box, other) == common_area(other, box) == expected
