import math
import random
import warnings

import PIL.Image
import pytest
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from smpler.utils.files.exif import MAX_DIAGONALS, MIN_DIAGONALS, focal_length_pixels

EQUIVALENT, LENS, UNIT = Base.FocalLengthIn35mmFilm, Base.FocalLength, Base.FocalPlaneResolutionUnit
X_RESOLUTION, Y_RESOLUTION = Base.FocalPlaneXResolution, Base.FocalPlaneYResolution
WIDTH, HEIGHT = Base.ExifImageWidth, Base.ExifImageHeight
SIZE = (6000, 4000)
FULL_FRAME = {EQUIVALENT: 28}
"""What is 36 mm wide has 6000 pixels: 28 mm are 28 / 36 * 6000 pixels."""
APS_C = {LENS: 200.0, X_RESOLUTION: 250.0, Y_RESOLUTION: 250.0, UNIT: 4}
"""A tele lens on a sensor 24 mm wide with 6000 pixels: 200 mm are 50000 pixels."""
SOURCES = [(FULL_FRAME, 28 / 36 * 6000), (APS_C, 50_000)]


def exif_of(tags: dict) -> PIL.Image.Exif:
    """Return EXIF data as they are read from a file."""
    exif = PIL.Image.Exif()
    exif.get_ifd(IFD.Exif).update(tags)
    read = PIL.Image.Exif()
    read.load(exif.tobytes())
    return read


def unread(tags: dict) -> PIL.Image.Exif:
    """Return EXIF data with values that no file need be able to hold."""
    exif = PIL.Image.Exif()
    exif.get_ifd(IFD.Exif).update(tags)
    return exif


def noted(width: object, height: object) -> dict:
    return {WIDTH: width, HEIGHT: height}


@pytest.mark.parametrize(("tags", "pixels"), SOURCES)
def test_each_source_gives_the_focal_length(tags, pixels):
    for size in (SIZE, SIZE[::-1]):
        assert focal_length_pixels(exif_of(tags), size) == pytest.approx(pixels)
        assert focal_length_pixels(exif_of(tags | noted(*SIZE)), size) == pytest.approx(pixels)


def test_photos_of_other_aspects_are_compared_by_the_diagonal():
    found = focal_length_pixels(exif_of({EQUIVALENT: 26}), (4032, 3024))
    assert found == pytest.approx(26 * 5040 / math.sqrt(36**2 + 24**2))


def test_a_tele_lens_on_aps_c_is_the_same_by_both_sources():
    """Canon's cameras of 18 megapixels write this resolution; their sensor is 22.3 mm wide."""
    canon = {X_RESOLUTION: IFDRational(5184000, 905), Y_RESOLUTION: IFDRational(3456000, 595)}
    by_sensor, by_equivalent = (
        focal_length_pixels(exif_of(tags), (5184, 3456))
        for tags in (canon | {LENS: 200.0}, {EQUIVALENT: 320})
    )
    assert by_sensor == pytest.approx(200 / 22.3 * 5184, rel=0.03), by_sensor
    assert by_sensor == pytest.approx(by_equivalent, rel=0.03), by_equivalent


@pytest.mark.parametrize(
    ("unit", "mm"),
    [({}, 25.4), ({UNIT: 2}, 25.4), ({UNIT: 3}, 10), ({UNIT: 4}, 1), ({UNIT: 5}, 0.001)],
)
def test_the_sensors_resolution_has_a_unit_and_inch_is_the_default(unit, mm):
    tags = {LENS: 50.0, X_RESOLUTION: 100 * mm, Y_RESOLUTION: 100 * mm} | unit
    assert focal_length_pixels(exif_of(tags), SIZE) == pytest.approx(5000)


@pytest.mark.parametrize("unit", [0, 1, 6, 65535, "inch", b"\2"])
def test_a_resolution_of_unknown_unit_says_nothing(unit):
    assert focal_length_pixels(unread(APS_C | {UNIT: unit}), SIZE) is None


@pytest.mark.parametrize("missing", [X_RESOLUTION, Y_RESOLUTION])
def test_the_resolution_of_one_direction_is_enough(missing):
    for tags in (APS_C | {missing: 0.0}, {tag: APS_C[tag] for tag in APS_C.keys() - {missing}}):
        assert focal_length_pixels(exif_of(tags), SIZE) == pytest.approx(50_000)


def test_a_focal_length_without_a_resolution_says_nothing():
    assert focal_length_pixels(exif_of({LENS: 4.2}), SIZE) is None
    assert focal_length_pixels(exif_of({}), SIZE) is None
    assert focal_length_pixels(PIL.Image.Exif(), SIZE) is None


def test_the_equivalent_comes_first_and_the_lens_replaces_a_useless_one():
    assert focal_length_pixels(exif_of(APS_C | FULL_FRAME), SIZE) == pytest.approx(28 / 36 * 6000)
    for useless in (0, 1, 65535):
        found = focal_length_pixels(exif_of(APS_C | {EQUIVALENT: useless}), SIZE)
        assert found == pytest.approx(50_000), useless


@pytest.mark.parametrize(("tags", "pixels"), SOURCES)
@pytest.mark.parametrize("size", [(600, 400), (9000, 6000), (1000, 667), (400, 600), (100, 67)])
def test_a_resized_photo_has_its_focal_length_resized(tags, pixels, size):
    found = focal_length_pixels(exif_of(tags | noted(*SIZE)), size)
    assert found == pytest.approx(pixels * max(size) / 6000, rel=0.004)


@pytest.mark.parametrize(("tags", "pixels"), SOURCES)
@pytest.mark.parametrize(
    "size", [(6000, 3000), (6000, 3800), (4000, 4000), (3000, 3000), (2500, 5900)]
)
def test_a_cropped_photo_keeps_its_focal_length(tags, pixels, size):
    for width, height in (SIZE, SIZE[::-1]):
        found = focal_length_pixels(exif_of(tags | noted(width, height)), size)
        assert found == pytest.approx(pixels), (width, height)


@pytest.mark.parametrize(("tags", "pixels"), SOURCES)
@pytest.mark.parametrize(
    "sides",
    [
        (0, 0),
        (0, 9000),
        (-6000, -4000),
        (100, 100),
        (160, 120),
        (9000, 3000),
        (5000, 4500),
        ("6000", "400"),
    ]
    + [(math.nan, 9000.0), (math.inf, math.inf), (b"\0", None), ((6000, 1), (400, 1))],
)
def test_a_size_that_is_not_this_photos_is_ignored(tags, pixels, sides):
    assert focal_length_pixels(unread(tags | noted(*sides)), SIZE) == pytest.approx(pixels)


@pytest.mark.parametrize(
    ("equivalent", "credible"), [(8, False), (9, True), (2160, True), (2170, False)]
)
def test_lenses_that_do_not_exist_are_not_believed(equivalent, credible):
    found = focal_length_pixels(exif_of({EQUIVALENT: equivalent}), SIZE)
    assert (found is not None) == credible, found


HOSTILE = [
    0,
    -1,
    -28.0,
    10**400,
    1e308,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
    "28",
    "",
    b"28",
    b"",
]
HOSTILE += [None, (), (28, 28), [28], {28: 28}, 28j, IFDRational(28, 0), IFDRational(0, 0)]
HOSTILE += [IFDRational(-28, 1), IFDRational(10**400, 1), IFDRational(1, 10**400)]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_hostile_values_say_nothing(value):
    assert focal_length_pixels(unread({EQUIVALENT: value}), SIZE) is None
    assert focal_length_pixels(unread(APS_C | {LENS: value}), SIZE) is None
    both = {X_RESOLUTION: value, Y_RESOLUTION: value}
    assert focal_length_pixels(unread(APS_C | both), SIZE) is None
    assert focal_length_pixels(unread(APS_C | {EQUIVALENT: value}), SIZE) == pytest.approx(50_000)


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (1, 65535), (20000, 10000)])
def test_any_mixture_of_values_gives_a_credible_focal_length_or_none(size):
    draw, found = random.Random(0), []
    tags = (EQUIVALENT, LENS, X_RESOLUTION, Y_RESOLUTION, UNIT, WIDTH, HEIGHT)
    usual = (2, 3, 28, 50.0, 5000, IFDRational(42, 10), IFDRational(5184000, 907))
    for _ in range(500):
        drawn = {tag: draw.choice(draw.choice((HOSTILE, usual))) for tag in tags}
        found.append(focal_length_pixels(unread(drawn), size))
    ratios = [pixels / math.hypot(*size) for pixels in found if pixels is not None]
    assert ratios and len(ratios) < len(found)
    assert MIN_DIAGONALS <= min(ratios) and max(ratios) <= MAX_DIAGONALS, (min(ratios), max(ratios))


@pytest.mark.parametrize(
    "offset", [0, 1, -1, 2**32 - 1, 10**30, math.nan, "8", b"8", (8, 8), {}, None]
)
def test_a_block_that_points_nowhere_says_nothing(offset):
    for exif in (PIL.Image.Exif(), exif_of(FULL_FRAME)):
        exif[IFD.Exif] = offset
        assert focal_length_pixels(exif, SIZE) is None


def test_cut_off_and_damaged_blocks_say_nothing_or_something_credible_without_a_warning():
    exif = PIL.Image.Exif()
    exif.get_ifd(IFD.Exif).update(APS_C | FULL_FRAME | noted(*SIZE))
    whole, draw, found = exif.tobytes(), random.Random(0), []
    blocks = [whole[:length] for length in range(6 + 8, len(whole))]
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[draw.randrange(6 + 8, len(whole))] = draw.choice((0, 1, 2, 127, 128, 255))
        blocks.append(bytes(damaged))
    for block in blocks:
        read = PIL.Image.Exif()
        with warnings.catch_warnings(action="ignore"):
            read.load(block)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found.append(focal_length_pixels(read, SIZE))
        assert not caught, (block, [str(warning.message) for warning in caught])
    ratios = [pixels / math.hypot(*SIZE) for pixels in found if pixels is not None]
    assert MIN_DIAGONALS <= min(ratios) and max(ratios) <= MAX_DIAGONALS, (min(ratios), max(ratios))
    assert None in found
