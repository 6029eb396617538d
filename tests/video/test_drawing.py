"""Videos are drawn in segments, joined without a seam, and not drawn twice."""

import sys

import av
import numpy as np
import pytest

from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.rasterizer import rasterize
from smpler.utils.files.whole import write_whole
from smpler.utils.image import write_image
from smpler.video import drawing
from smpler.video.drawing import can_encode, draw_clip, drawn, encode, join
from smpler.video.reader import Part, open_folder, open_video
from tests.support.clips import walking_track
from tests.video.filmed import film, frame_of, number_of


@pytest.fixture(scope="module")
def smpl():
    return SMPL(open_body())


def pictures_in(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    return [number_of(image) for _, image in times], [time for time, _ in times]


def test_segments_are_joined_without_a_seam(tmp_path):
    paths = []
    for start in (0, 10, 20):
        paths.append(tmp_path / f"{start}.mp4")
        with open(paths[-1], "wb") as file:
            encode([frame_of(number) for number in range(start, start + 10)], 25.0, file)
    with open(tmp_path / "whole.mp4", "wb") as file:
        join(paths, file)
    numbers, times = pictures_in(tmp_path / "whole.mp4")
    assert numbers == list(range(30))
    assert np.allclose(times, np.arange(30) / 25)
    with av.open(str(tmp_path / "whole.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert float(container.streams.video[0].average_rate) == 25


def test_the_same_pictures_give_the_same_file(tmp_path):
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.integers(-3, 4, (40, 2)), axis=0)
    noise = rng.integers(0, 255, (400, 600, 3), np.uint8)
    pictures = [np.roll(noise, tuple(step), (0, 1)) for step in walk.tolist()]
    contents = set()
    for number in range(3):
        with open(tmp_path / f"{number}.mp4", "wb") as file:
            encode(pictures, 30.0, file)
        contents.add((tmp_path / f"{number}.mp4").read_bytes())
    assert len(contents) == 1


def test_an_odd_side_loses_a_pixel(tmp_path):
    with open(tmp_path / "odd.mp4", "wb") as file:
        encode([frame_of(0, (65, 49))] * 2, 30.0, file)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert container.streams.video[0].width, container.streams.video[0].height == (64, 48)


def test_people_are_drawn_where_they_are_with_their_numbers(smpl):
    track = walking_track(smpl.body, 4, track=2, smpl=smpl)
    image = np.full((480, 640, 3), 90, np.uint8)
    picture = drawn(image, [(track, 3, (0.2, 0.9, 0.3))], smpl, rasterize)
    changed = np.abs(picture.astype(int) - 90).max(axis=2) > 8
    rows, columns = np.nonzero(changed)
    body = track.joints_2d[3]
    assert changed[tuple(body[0].round().astype(int)[::-1])]
    assert abs(rows.max() - body[:, 1].max()) < 40 and abs(columns.mean() - body[0, 0]) < 40
    assert (image == 90).all() and drawn(image, [], smpl, rasterize) is image


def clip_of_frames(folder, count=25):
    folder.mkdir()
    for number in range(count):
        write_image(folder / f"{number:03d}.png", frame_of(number, (640, 480)))
    return open_folder(folder, 30.0)


def test_what_was_drawn_before_a_run_broke_off_is_kept(smpl, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "SEGMENT", 10)
    clip = clip_of_frames(tmp_path / "frames")
    tracks = [walking_track(smpl.body, 15, first=5, smpl=smpl)]
    count = []

    def counted(image, shown, *rest):
        count.append(len(shown))
        return drawn(image, shown, *rest)

    monkeypatch.setattr(drawing, "drawn", counted)

    class Killed(BaseException):
        pass

    def run(folder, identity, stop=None):
        folder.mkdir(exist_ok=True)

        def progress(done):
            if done == stop:
                raise Killed

        draw_clip(
            clip,
            Part(),
            30.0,
            tracks,
            smpl,
            folder,
            folder / "out.mp4",
            rasterize,
            identity,
            progress,
        )

    run(tmp_path / "whole", {"run": 1})
    assert len(count) == 25 and count == [0] * 5 + [1] * 15 + [0] * 5
    with pytest.raises(Killed):
        run(tmp_path / "broken", {"run": 1}, stop=14)
    assert not (tmp_path / "broken" / "out.mp4").exists()
    count.clear()
    run(tmp_path / "broken", {"run": 1})
    assert len(count) == 15  # ten were done
    whole, broken = ((tmp_path / x / "out.mp4").read_bytes() for x in ("whole", "broken"))
    assert whole == broken
    count.clear()
    run(tmp_path / "broken", {"run": 2})  # another motion: all anew
    assert len(count) == 25


def test_part_of_a_clip_shows_the_right_frames_of_a_track(smpl, tmp_path, monkeypatch):
    clip = open_video(film(tmp_path / "clip.mp4", [n / 30 for n in range(30)], (640, 480)))
    track = walking_track(smpl.body, 10, first=15, smpl=smpl)
    shown = []
    monkeypatch.setattr(drawing, "drawn", lambda image, people, *_: shown.append(people) or image)
    folder = tmp_path / "work"
    folder.mkdir()
    part, path = Part(start=0.4), folder / "out.mp4"
    draw_clip(clip, part, 30.0, [track], smpl, folder, path, rasterize, {}, lambda done: None)
    rows = [row for people in shown for _, row, _ in people]
    assert len(shown) == 18 and rows == list(range(10)) and not shown[2] and shown[3]


def test_without_pyav_there_is_no_video(monkeypatch):
    assert can_encode()
    monkeypatch.setitem(sys.modules, "av", None)
    assert not can_encode()


def test_a_damaged_segment_is_named_in_one_sentence(tmp_path):
    paths = [tmp_path / f"drawn_{number:05d}.mp4" for number in range(2)]
    for path in paths:
        with path.open("wb") as file:
            encode([np.zeros((32, 48, 3), np.uint8)] * 2, 10.0, file)
    for content in (b"", paths[1].read_bytes()[:200], b"no video" * 9):
        paths[1].write_bytes(content)
        with pytest.raises(ValueError, match=r"drawn_00001\.mp4 is damaged; delete it"):
            write_whole(tmp_path / "out.mp4", lambda file: join(paths, file))
        assert sorted(tmp_path.iterdir()) == paths
