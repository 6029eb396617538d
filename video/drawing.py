"""A clip with the bodies drawn over it, as MP4 (H.264).

The pictures are encoded in segments, each a whole file of its own, and joined without encoding them
again: what was drawn before a run broke off is kept.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from smpler.models.smpl import SMPL
from smpler.utils.drawing.overlay import draw_bodies, place_body
from smpler.utils.drawing.visualize import Color, Rasterizer, palette
from smpler.utils.files.whole import write_whole
from smpler.utils.paths import display
from smpler.video.parallel import beside, read_ahead
from smpler.video.reader import Clip, Part, used_frames
from smpler.video.track_result import TrackResult

SEGMENT = 100
"""Frames of a segment."""
QUALITY = 21
"""x264's constant rate factor: 18 cannot be told from the original, 23 is its default."""
AHEAD = 2
"""Pictures that are drawn at a time."""
SAMPLES = 1
"""Points along a pixel's side: in a video that moves, rough edges are not seen."""
MISSING = (
    "PyAV is not installed, so that no video is written; `pip install av` or `pip install "
    "'smpler[video]'` adds it, and --resume then goes on from what was found."
)


def can_encode() -> bool:
    """Say whether PyAV is installed, with H.264."""
    try:
        import av  # here, as only videos need it
    except ImportError:
        return False
    return "libx264" in av.codecs_available


def draw_clip(
    clip: Clip,
    part: Part,
    fps: float,
    tracks: Sequence[TrackResult],
    smpl: SMPL,
    folder: Path,
    path: Path,
    rasterizer: Rasterizer,
    identity: Mapping,
    progress: Callable[[int], object],
) -> None:
    """Draw people over a clip and write it, segment by segment.

    Args:
        clip: the frames.
        part: which are drawn.
        fps: of these.
        tracks: the people.
        smpl: their body.
        folder: of the segments; those of the same drawing are not drawn again.
        path: of the video.
        rasterizer: finds the triangles.
        identity: what the pictures depend on; JSON.
        progress: is told after each picture how many are done.
    """
    note, text = folder / "drawing.json", json.dumps(dict(identity), sort_keys=True)
    if not note.is_file() or note.read_text() != text:
        for old in folder.glob("drawn_*.mp4"):
            old.unlink()
        write_whole(note, lambda file: file.write(text.encode()))
    ready = 0
    while (folder / f"drawn_{ready:05d}.mp4").is_file():
        ready += 1
    done = ready * SEGMENT

    def counted() -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        nonlocal done
        for picture in drawn_frames(clip, part, done, tracks, smpl, rasterizer):
            done += 1
            yield picture
            progress(done)

    pictures = counted()
    while (first := next(pictures, None)) is not None:
        of_segment = chain([first], islice(pictures, SEGMENT - 1))
        number = (done - 1) // SEGMENT
        write_whole(
            folder / f"drawn_{number:05d}.mp4",
            lambda file, of_segment=of_segment: encode(of_segment, fps, file),
        )
    segments = sorted(folder.glob("drawn_*.mp4"))
    write_whole(path, lambda file: join(segments, file))


def drawn_frames(
    clip: Clip,
    part: Part,
    skip: int,
    tracks: Sequence[TrackResult],
    smpl: SMPL,
    rasterizer: Rasterizer,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield frames with the people drawn over them.

    Args:
        clip: the frames.
        part: which are taken.
        skip: so many are left out at first.
        tracks: the people.
        smpl: their body.
        rasterizer: finds the triangles.
    """
    colors = palette(len(tracks))
    starts = [first_step(track, part, clip.fps) for track in tracks]

    def draw(job: tuple[int, UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
        step, image = job
        shown = [
            (track, step - start, color)
            for track, start, color in zip(tracks, starts, colors, strict=True)
            if 0 <= step - start < len(track.frames)
        ]
        return drawn(image, shown, smpl, rasterizer)

    with beside(AHEAD) as threads:
        waiting = []
        frames = read_ahead(used_frames(clip, part, skip))
        for step, frame in enumerate(frames, start=skip):
            waiting.append(threads.start(draw, (step, frame.image)))
            if len(waiting) > AHEAD:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def first_step(track: TrackResult, part: Part, fps: float) -> int:
    """Return the number of a track's first frame among the used ones."""
    return round((float(track.times[0]) - part.start) * fps / part.every)


def drawn(
    image: UInt8[np.ndarray, "h w 3"],
    shown: Sequence[tuple[TrackResult, int, Color]],
    smpl: SMPL,
    rasterizer: Rasterizer,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a frame with people drawn over it, each with the track's number beside the head.

    Args:
        image: RGB.
        shown: tracks, and which of their frames, and the colour.
        smpl: their body.
        rasterizer: finds the triangles.
    """
    if not shown:
        return image
    bodies = []
    for track, row, color in shown:
        points = vertices_of(smpl, track, row) + track.translation[row]
        placing = (track.focal_length, track.principal_point)
        bodies.append(place_body(points, track.faces, color, *placing))
    image = draw_bodies(image, bodies, rasterizer, samples=SAMPLES)
    for track, row, color in shown:
        _write_number(image, track, row, color)
    return image


@torch.inference_mode()
def vertices_of(smpl: SMPL, track: TrackResult, row: int) -> Float[np.ndarray, "v 3"]:
    """Return the mesh of one frame, metres."""
    if track.vertices is not None:
        return track.vertices[row]
    like = smpl.v_template
    rotmat = torch.from_numpy(track.rotmat[row : row + 1]).to(like)
    betas = torch.from_numpy(track.betas[None]).to(like)
    return smpl(rotmat, betas).vertices[0].float().cpu().numpy()


def _write_number(
    image: UInt8[np.ndarray, "h w 3"], track: TrackResult, row: int, color: Color
) -> None:
    """Write a track's number over the head."""
    places = track.joints_2d[row]
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return
    size = float(np.ptp(places[:, 1])) / 400
    scale = float(np.clip(size, 0.5, 3))
    x, y = places[places[:, 1].argmin()]
    thick = max(1, round(2 * scale))
    at = (round(float(x)), max(round(float(y - 60 * size)), round(30 * scale)))
    for shade, width in (((20, 20, 20), 3 * thick), (tuple(255 * c for c in color), thick)):
        cv2.putText(
            image, str(track.track), at, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, width, cv2.LINE_AA
        )


def encode(pictures: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float, file: BinaryIO) -> None:
    """Write pictures, at least one, as MP4, H.264; a side of odd length loses its last pixel."""
    import av

    pictures = iter(pictures)
    first = next(pictures)
    height, width = (side - side % 2 for side in first.shape[:2])
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Without B-frames (bf), the packets of joined segments stay in order. x264 in threads and
        # FFmpeg's own conversion of colours differ from run to run.
        options = {"crf": str(QUALITY), "preset": "veryfast", "bf": "0", "threads": "1"}
        stream.codec_context.options = options
        for number, picture in enumerate(chain([first], pictures)):
            even = np.ascontiguousarray(picture[:height, :width])
            planes = np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def join(segments: Sequence[Path], file: BinaryIO) -> None:
    """Write videos of the same kind one after the other, without encoding them again.

    Raises:
        ValueError: one is damaged.
    """
    import av

    with av.open(file, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream, offset = None, 0
        for path in segments:
            try:
                source = av.open(str(path))
                video = source.streams.video[0]
            except (av.FFmpegError, IndexError) as error:
                raise ValueError(
                    f"{display(path)} is damaged; delete it, and --resume draws it again."
                ) from error
            with source:
                if stream is None:
                    stream = container.add_stream_from_template(video)
                end = 0
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    container.mux(packet)
                offset = max(offset, end)
