"""Videos, whose decoders are large and old: each file is read in a process of its own."""

import multiprocessing
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from smpler.video.reader import MAX_SIDE, Part, open_video, used_frames
from tests.fuzz.harness import EXAMPLES, Reader, check_by_examples
from tests.support.tsv_data import smooth_image

SECONDS = 20
NUM_FRAMES = 6
"""Of the clips; of a damaged one, at most twice as many are read."""


def clips() -> list[bytes]:
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG")):
            path = str(Path(folder) / f"clip{suffix}")
            writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*codec), 10, (32, 24))
            for number in range(NUM_FRAMES):
                writer.write(smooth_image(24, 32, number))
            writer.release()
            files.append(Path(path).read_bytes())
    return files


def read_clip(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the frames that can be read."""
    clip = open_video(path)
    shapes = []
    for frame in used_frames(clip, Part()):
        assert frame.image.dtype == np.uint8 and np.isfinite(frame.time)
        shapes.append(frame.image.shape)
        if len(shapes) == 2 * NUM_FRAMES:
            break
    return shapes


def in_a_process(path: Path) -> list[tuple[int, ...]]:
    """Return what `read_clip` does, or raise its error; one that ends the process is a fault."""
    ours, others = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(path, others))
    child.start()
    others.close()
    try:
        answer = ours.recv() if ours.poll(SECONDS) else RuntimeError(f"it took {SECONDS} s")
    except EOFError:
        child.join()
        answer = RuntimeError(f"the process ended with {child.exitcode}")
    child.kill()
    child.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(path: Path, pipe) -> None:
    try:
        pipe.send(read_clip(path))
    except Exception as error:
        pipe.send(error)


def are_frames(shapes: list[tuple[int, ...]], _) -> str | None:
    if any(len(shape) != 3 or shape[2] != 3 or max(shape) > MAX_SIDE for shape in shapes):
        return f"frames are {shapes[:3]}"
    return None


READERS = [Reader("clip", ".mp4", clips, in_a_process, are_frames)]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_clips_have_frames_or_one_sentence(reader, tmp_path):
    check_by_examples(reader, tmp_path, EXAMPLES)
