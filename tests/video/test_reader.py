"""Frames come at an even rate, upright, and of the part that is asked for."""

import cv2
import numpy as np
import pytest

from smpler.utils.files.videos import video_kind
from smpler.utils.image import write_image
from smpler.video import reader
from smpler.video.reader import (
    Part,
    breaks_off,
    open_folder,
    open_video,
    record,
    used_count,
    used_fps,
    used_frames,
)
from tests.video.filmed import film, frame_of, number_of, turn

WHOLE = Part()


def numbers(clip, part=WHOLE, skip=0):
    return [number_of(frame.image) for frame in used_frames(clip, part, skip)]


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """A second of 30 frames."""
    return film(tmp_path_factory.mktemp("clips") / "clip.mp4", [n / 30 for n in range(30)])


def test_every_frame_comes_once_with_its_time(second):
    clip = open_video(second)
    frames = list(used_frames(clip, Part()))
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.number for frame in frames] == list(range(30))
    assert np.allclose([frame.time for frame in frames], np.arange(30) / 30)
    assert frames[0].image.shape == (48, 64, 3)
    assert np.abs(frames[0].image[10, 10].astype(int) - [200, 20, 20]).max() < 25  # RGB
    assert (clip.fps, clip.count) == (30.0, 30)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part(start=0.5), range(15, 30)),
        (Part(stop=0.5), range(15)),
        (Part(every=4), range(0, 30, 4)),
        (Part(start=0.2, stop=0.6, every=3), range(6, 18, 3)),
    ],
)
def test_a_part_is_taken(second, part, expected):
    clip = open_video(second)
    assert numbers(clip, part) == list(expected)
    assert used_count(clip, part) == pytest.approx(len(expected), abs=1)
    assert used_fps(clip, part) == 30 / part.every


def test_frames_that_are_known_are_left_out(second):
    clip = open_video(second)
    assert numbers(clip, Part(every=2), skip=10) == list(range(20, 30, 2))


def test_an_uneven_rate_is_made_even(tmp_path):
    """Frames 10 to 19 were filmed at half the rate; of the last ten, pairs came at once."""
    times = [n / 30 for n in range(10)] + [(10 + 2 * n) / 30 for n in range(10)]
    times += [(30 + n // 2 + 0.2 * (n % 2)) / 30 for n in range(10)]
    clip = open_video(film(tmp_path / "phone.mp4", times))
    even = reader.VideoFile(clip.path, 30.0, clip.count)  # the file says the mean rate
    found = numbers(even)
    assert found == [*range(10), *np.repeat(range(10, 20), 2), 20, 22, 24, 26, 28]
    moments = [frame.time for frame in used_frames(even, Part())]
    assert np.allclose(np.diff(moments), 1 / 30)


def test_a_turned_video_is_upright(tmp_path):
    path = turn(film(tmp_path / "portrait.mp4", [0, 0.1, 0.2]))
    (first, *_) = used_frames(open_video(path), Part())
    assert first.image.shape == (64, 48, 3)
    red = np.abs(first.image.astype(int) - [200, 20, 20]).max(axis=2) < 40
    rows, columns = (red.mean(axis=axis) > 0.3 for axis in (1, 0))
    assert rows[:20].all() and columns[-20:].all() and not red[40:].any() and not red[:, :16].any()


def test_a_folder_of_frames_is_a_clip_in_the_order_of_names(tmp_path):
    for number in (2, 0, 1):
        write_image(tmp_path / f"f{number:03d}.png", frame_of(number))
    (tmp_path / "notes.txt").write_text("not a frame")
    clip = open_folder(tmp_path, 12.5)
    assert (clip.name, clip.count, clip.fps) == (tmp_path.name, 3, 12.5)
    assert numbers(clip) == [0, 1, 2]
    assert [frame.time for frame in used_frames(clip, Part())] == [0, 0.08, 0.16]


def test_frames_of_another_size_are_refused_by_name(tmp_path):
    write_image(tmp_path / "0.png", frame_of(0))
    write_image(tmp_path / "1.png", frame_of(1, (32, 48)))
    with pytest.raises(ValueError, match="frame 1 has 32 x 48 pixels, but the first has 64 x 48"):
        numbers(open_folder(tmp_path))


def test_a_broken_video_is_read_as_far_as_it_goes_and_said(tmp_path, second):
    content = second.read_bytes()
    broken = tmp_path / "broken.mp4"
    # the index survives at the end, the pictures in the middle do not
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    middle = start + (end - start) // 2
    broken.write_bytes(content[:middle] + bytes(end - middle) + content[end:])
    clip = open_video(broken)
    last = [frame.number for frame in used_frames(clip, Part())][-1]
    whole = open_video(second)
    assert not breaks_off(whole, 29) and breaks_off(whole, 20)
    assert last >= 10  # what can be read comes out


@pytest.mark.parametrize("content", [b"", b"text", bytes(4) + b"ftypisom" + bytes(500)])
def test_what_is_no_video_is_refused_in_one_sentence(content, tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no frame of this video can be read"):
        open_video(path)
    with pytest.raises(FileNotFoundError, match="is missing"):
        open_video(tmp_path / "none.mp4")


def test_videos_are_known_by_their_first_bytes(tmp_path, second):
    assert video_kind(second) == "MP4"
    samples = {
        b"\x1aE\xdf\xa3": "Matroska or WebM",
        b"RIFF\0\0\0\0AVI LIST": "AVI",
        b"RIFF\0\0\0\0WEBPVP8 ": "",
        bytes(4) + b"ftypheic": "",
        bytes(4) + b"ftypavif": "",
        b"\x89PNG\r\n\x1a\n": "",
        b"\0\0\0\x08wide\0\0\0\0mdat": "QuickTime",
        (b"G" + bytes(187)) * 3: "MPEG-TS",
        b"GIF89a" + bytes(400): "",
        b"Go to the shop": "",
    }
    path = tmp_path / "x"
    for content, kind in samples.items():
        path.write_bytes(content)
        assert video_kind(path) == kind, content


class Camera:
    """Gives three pictures, then none."""

    def __init__(self, number):
        self.left = 3 if number == 0 else 0

    def isOpened(self):  # noqa: N802  # OpenCV's name
        return self.left >= 0

    def read(self):
        self.left -= 1
        return (True, frame_of(self.left)) if self.left >= 0 else (False, None)

    def release(self):
        pass


def test_a_camera_is_recorded_into_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    clip = record(0, tmp_path / "frames", seconds=5.0)
    assert clip.count == 3 and clip.fps > 0 and len(numbers(clip)) == 3
    with pytest.raises(ValueError, match="--webcam 7 gives no picture"):
        record(7, tmp_path / "none", seconds=5.0)
    assert not (tmp_path / "none").exists()
