"""What the web page does with one file: checks it, estimates the people, packs the results."""

import shutil
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smpler.apps.pictures import PHOTO_SIDE, shrunk
from smpler.models.answers import LOW_QUALITY
from smpler.models.predictor import Predictor
from smpler.utils.drawing.visualize import palette
from smpler.utils.export import PersonResult, save_people, save_scene
from smpler.utils.files.photos import PHOTO_FORMATS, open_photo, photo_kind
from smpler.utils.files.whole import write_whole
from smpler.utils.image import read_image, read_photo, write_image
from smpler.utils.paths import display
from smpler.video.clip import ClipOptions, Progress, process_clip
from smpler.video.drawing import MISSING
from smpler.video.reader import Part, open_video
from smpler.video.track_result import TrackResult

CLIP_FPS = 30.0
"""About how many frames a second are used of faster clips."""
NO_VIDEO = "There is no video of it, as PyAV is not installed on this computer."
SEEN = 0.5
"""`joints_confidence` from which a joint counts as seen."""
STARTS = {b"\x1aE\xdf\xa3": 0, b"ftyp": 4, b"moov": 4, b"mdat": 4, b"wide": 4, b"AVI ": 8}
"""How clips begin, and at which byte: WebM, MP4 and MOV, AVI. FFmpeg would take texts that name
other files as well."""
MEGABYTE = 2**20
"""As gradio counts."""
SIDES = {"L": "left ", "R": "right "}


@dataclass(frozen=True)
class Answer:
    """What the page shows and offers, as files in one folder."""

    picture: Path | None
    """The photo with bodies over it; None for a clip."""
    video: Path | None
    """The clip with bodies over it; None for a photo."""
    model: Path
    """The people in space, glb."""
    words: str
    """How far the answer is to be trusted, as Markdown."""
    archive: Path
    """All results, zip."""


@dataclass(frozen=True)
class Limits:
    """What the page accepts."""

    megabytes: float
    """Of a file."""
    seconds: float
    """Of a clip."""


def answer(
    predictor: Predictor,
    upload: Path,
    folder: Path,
    limits: Limits,
    progress: Progress = lambda *_: None,
) -> Answer:
    """Estimate the people of a photo or clip, and write the results into a folder.

    Args:
        predictor: estimates the people.
        upload: the file.
        folder: where results go.
        limits: what is accepted.
        progress: is told how far a clip is.

    Raises:
        ValueError: the file is too large or too long, no photo or clip, damaged, or shows nobody;
            in one sentence for the page, which names no folder.
    """
    name, megabytes = display(upload.name), upload.stat().st_size / MEGABYTE
    if megabytes > limits.megabytes:
        raise ValueError(f"{name} has {megabytes:.0f} MB; the most is {limits.megabytes:g} MB.")
    kind = kind_of(upload)
    if not kind:
        raise ValueError(f"{name} is neither a photo nor a clip that can be read.")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a photo without people
            if kind == "photo":
                return _photo_answer(predictor, upload, folder)
            return _clip_answer(predictor, upload, folder, limits, progress)
    except (OSError, ValueError) as error:
        raise ValueError(str(error).replace(display(upload), name)) from error


def kind_of(path: Path) -> str:
    """Say by its content whether a file is a `photo` or a `clip`; nothing for any other file."""
    if photo_kind(path):  # perhaps one that cannot be read here: an error says what to do
        return "photo"
    with open(path, "rb") as file:
        head = file.read(16)
    if any(head[at:].startswith(start) for start, at in STARTS.items()):
        return "clip"
    try:
        with warnings.catch_warnings(action="ignore"), open_photo(path, PHOTO_FORMATS):
            return "photo"
    except Exception:  # a damaged header can raise anything
        return ""


def _photo_answer(predictor: Predictor, upload: Path, folder: Path) -> Answer:
    photo = read_photo(upload)
    people = predictor(photo)
    if not people:
        raise ValueError(
            f"Nobody was found in {photo.name}; try a photo in which people are larger."
        )
    results = folder / "results"
    both = save_people(people, photo.image, results, "photo")
    picture = folder / "overlay.png"
    overlay = read_image(both)[:, photo.image.shape[1] :]  # the photo stands on its left
    write_image(picture, np.ascontiguousarray(shrunk(overlay, PHOTO_SIDE)))
    model = folder / "people.glb"
    # viewers frame the rest pose of a mesh with a rig
    save_scene(model, [replace(x, rig=None) for x in people], palette(len(people)))
    return Answer(picture, None, model, words_for(people), pack(results, folder / "results.zip"))


def _clip_answer(
    predictor: Predictor, upload: Path, folder: Path, limits: Limits, progress: Progress
) -> Answer:
    clip, name = open_video(upload), display(upload.name)
    if clip.count is not None and clip.count / clip.fps > limits.seconds:
        seconds = clip.count / clip.fps
        raise ValueError(f"{name} is {seconds:.0f} s long; the most is {limits.seconds:g} s.")
    part = Part(stop=limits.seconds, every=max(1, round(clip.fps / CLIP_FPS)))
    results = folder / "results"
    done = process_clip(clip, predictor, results, "clip", ClipOptions(part), progress)
    if not done.tracks:
        raise ValueError(f"Nobody was found in {name}; try a clip in which people are larger.")
    model, video = folder / "people.glb", None
    shutil.copyfile(results / "clip.glb", model)
    if (results / "clip_out.mp4").is_file():
        video = folder / "overlay.mp4"
        shutil.copyfile(results / "clip_out.mp4", video)
    notes = [NO_VIDEO if note == MISSING else note for note in done.notes]
    words = words_for_tracks(done.tracks, notes)
    return Answer(None, video, model, words, pack(results, folder / "results.zip"))


def pack(results: Path, archive: Path) -> Path:
    """Move the files of a folder into a zip."""
    files = sorted(results.iterdir())

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for each in files:
                packed.write(each, each.name)

    write_whole(archive, write)
    shutil.rmtree(results)
    return archive


def words_for(people: Sequence[PersonResult]) -> str:
    """Say how far the bodies of a photo are to be trusted."""
    lines = [_count(len(people)), ""]
    for person in people:
        line = f"- Person {person.person}: {_quality(person.quality)}"
        names = zip(person.joint_names, person.joints_confidence, strict=True)
        hidden = [plain(name) for name, seen in names if seen < SEEN]
        if hidden:
            line += f". Not seen, so guessed: {', '.join(hidden)}"
        lines.append(f"{line}.")
    if people[0].focal_length_source == "diagonal":
        lines += ["", "The photo does not say with which lens it was taken: distances are guesses."]
    return "\n".join(lines)


def words_for_tracks(tracks: Sequence[TrackResult], notes: Sequence[str]) -> str:
    """Say how far the motions of a clip are to be trusted."""
    lines = [_count(len(tracks)), ""]
    for track in tracks:
        quality = float(track.quality[track.is_seen].mean())
        line = f"- Person {track.track}, from {track.times[0]:.1f} to {track.times[-1]:.1f} s: "
        lines.append(f"{line}{_quality(quality)}.")
    return "\n".join([*lines, "", *notes])


def _count(count: int) -> str:
    return "**1 person**" if count == 1 else f"**{count} people**"


def _quality(quality: float) -> str:
    low = ", which is low: do not rely on it" if quality < LOW_QUALITY else ""
    return f"quality {quality:.2f} of 1{low}"


def plain(name: str) -> str:
    """Return a joint's name in words: `L_Knee` is the left knee."""
    side, _, joint = name.rpartition("_")
    return SIDES.get(side, "") + joint.lower()
