"""What is seen of the people of a clip: boxes, landmarks and the network's answers, frame by frame.

This is what takes the time, so that it is kept in files, CHUNK frames each, from which a run that
was broken off goes on. A run that was not broken off writes the same ones.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from smpler.models.observation import judged
from smpler.models.placement import Group
from smpler.models.predictor import Predictor
from smpler.utils.files.arrays import misfit, read_npz
from smpler.utils.files.whole import write_whole
from smpler.utils.image import CropWindow
from smpler.video.parallel import beside, read_ahead
from smpler.video.reader import Clip, Frame, Part, used_fps, used_frames
from smpler.video.tracker import Sighting, Tracker

CHUNK = 100
"""Frames of a file."""
NETWORK_PER_SECOND = 10.0
"""How often the network looks at each person; in between, its answers are interpolated."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is seen in a clip; a row for each person in each frame where they are seen."""

    frames: Int[np.ndarray, "f"]
    """Numbers of the used frames in the clip."""
    times: Float[np.ndarray, "f"]
    """Seconds from the clip's start."""
    frame: Int[np.ndarray, "n"]
    """Which of the used frames."""
    track: Int[np.ndarray, "n"]
    """Who, see `Sighting.track`."""
    box: Float[np.ndarray, "n 4"]
    box_score: Float[np.ndarray, "n"]
    confirmed: Int[np.ndarray, "n"]
    """See `Sighting.confirmed`."""
    window: Int[np.ndarray, "n 4"]
    """Of the crop: x, y, width, height, pixels."""
    places: Float[np.ndarray, "n k 2"]
    """Of the landmarks, crop coordinates."""
    visibility: Float[np.ndarray, "n k"]
    weights: Float[np.ndarray, "n k"]
    is_own: Float[np.ndarray, "n k"]
    """See `SeenLandmarks`."""
    presence: Float[np.ndarray, "n"]
    """How sure the landmark detector is that somebody is there."""
    has_network: Bool[np.ndarray, "n"]
    """Whether the network looked."""
    rotmat: Float[np.ndarray, "n 24 3 3"]
    betas: Float[np.ndarray, "n 10"]
    cam: Float[np.ndarray, "n 3"]
    """What it said; zeros where it did not look."""

    def of(self, rows: Bool[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Return the fields of some rows, by name."""
        return {name: values[rows] for name, values in vars(self).items() if name not in FRAMES}


FRAMES = ("frames", "times")
"""Fields of `Seen` that have an entry a frame, not a row."""
ROWS: dict[str, tuple[int | str, ...]] = {
    "box": ("n", 4), "window": ("n", 4), "places": ("n", "k", 2),
    **dict.fromkeys(("visibility", "weights", "is_own"), ("n", "k")),
    **dict.fromkeys(("frame", "track", "box_score", "confirmed", "presence"), ("n",)),
    "has_network": ("n",), "rotmat": ("n", 24, 3, 3), "betas": ("n", 10), "cam": ("n", 3),
}  # fmt: skip
"""Shapes of the others."""
STATE = (
    "numbers", "scores", "velocity", "margins", "keypoints", "visibility", "hip", "top",
)  # fmt: skip
"""What a tracker's state holds of each person, see `Tracker.state`."""


def watch(
    clip: Clip,
    part: Part,
    predictor: Predictor,
    focal_length: float | None,
    folder: Path,
    resume: bool,
    identity: Mapping,
) -> Iterator[tuple[Frame | None, int]]:
    """Look at the frames of a clip one after the other, and keep what is seen in a folder.

    Args:
        clip: is looked at.
        part: of it.
        predictor: sees people.
        focal_length: of the camera, pixels; None: the frames' diagonal.
        folder: of the files; is made.
        resume: go on behind the files that are there, if they are of the same run.
        identity: what the run depends on; JSON.

    Yields:
        Each frame, or None for those that are known from the files, and the number of people in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(identity), sort_keys=True)
    known = _known(folder, text) if resume else []
    for path in sorted(folder.glob("seen_*.npz"))[len(known) :]:
        path.unlink()
    fps = used_fps(clip, part)
    detector = predictor.load_landmark_detector(is_clip=True)
    tracker = Tracker(predictor.load_person_detector(), detector, fps)
    sketch = Sketch(predictor, focal_length, fps)
    for chunk in known:
        for number in range(len(chunk["frames"])):
            people = chunk.get("frame", np.zeros(0, int)) == tracker.frame + 1 + number
            yield None, int(people.sum())
        tracker.restore({k[6:]: chunk[k] for k in chunk if k.startswith("state_")})
        sketch.met = set(chunk["met"].tolist())
    done = CHUNK * len(known)
    with beside(2) as other:
        tracker.beside = other
        noted = other.start(list)
        for frame in read_ahead(used_frames(clip, part, skip=done)):
            sightings = tracker.step(frame.image)
            noted.result()
            # the network looks at this frame while the tracker goes on to the next
            noted = other.start(sketch.add, frame, tracker.frame, sightings)
            is_full = (tracker.frame + 1) % CHUNK == 0
            if is_full:
                noted.result()
                _write(folder / f"seen_{tracker.frame // CHUNK:05d}.npz", sketch, tracker, text)
            yield frame, len(sightings)
        noted.result()
    if sketch.frames:
        _write(folder / f"seen_{tracker.frame // CHUNK:05d}.npz", sketch, tracker, text)


class Sketch:
    """Collects what is seen in some frames.

    Args:
        predictor: its network looks at people.
        focal_length: pixels; None: the frames' diagonal.
        fps: of the frames.
    """

    def __init__(self, predictor: Predictor, focal_length: float | None, fps: float):
        self.predictor, self.focal_length = predictor, focal_length
        self.step = max(1, round(fps / NETWORK_PER_SECOND)) if predictor.fit else 1
        self.met: set[int] = set()
        """Whom the network has looked at."""
        self.frames: list[int] = []
        self.times: list[float] = []
        self.rows: list[dict[str, np.ndarray]] = []

    def add(self, frame: Frame, number: int, sightings: list[Sighting]) -> None:
        """Take note of the people in a frame; `number` counts the used frames."""
        self.frames.append(frame.number)
        self.times.append(frame.time)
        if not sightings:
            return
        image, boxes = frame.image, [x.box for x in sightings]
        windows = [CropWindow.for_box(box) for box in boxes]
        diagonal = float(np.hypot(*image.shape[:2]))
        group = Group(image, windows, boxes, (), self.focal_length or diagonal)
        people = [(group, row) for row in range(len(group))]
        names = self.predictor.load_landmark_detector(is_clip=True).names
        mean = self.predictor.model.mean
        seen = judged([x.landmarks for x in sightings], people, names, mean)
        looked = [x.track not in self.met or number % self.step == 0 for x in sightings]
        rows = np.flatnonzero(looked)
        self.met |= {x.track for x in sightings}
        answer = {
            "rotmat": np.zeros((len(boxes), 24, 3, 3), np.float32),
            "betas": np.zeros((len(boxes), 10), np.float32),
            "cam": np.zeros((len(boxes), 3), np.float32),
        }
        if len(rows):
            estimate = self.predictor.network([people[row] for row in rows], [()] * len(rows))
            for name, values in answer.items():
                values[rows] = getattr(estimate, name).float().cpu().numpy()
        self.rows.append(
            {
                "frame": np.full(len(boxes), number),
                "track": np.array([x.track for x in sightings]),
                "box": np.array(boxes),
                "box_score": np.array([x.box_score for x in sightings]),
                "confirmed": np.array([x.confirmed for x in sightings]),
                "window": np.array([astuple(window) for window in windows]),
                **{
                    name: getattr(seen, name).float().cpu().numpy()
                    for name in ("places", "visibility", "weights", "is_own")
                },
                "presence": np.array([x.landmarks.score for x in sightings]),
                "has_network": np.array(looked),
                **answer,
            }
        )

    def taken(self) -> dict[str, np.ndarray]:
        """Return what was collected, and forget it."""
        names = self.rows[0] if self.rows else ()
        arrays = {name: np.concatenate([row[name] for row in self.rows]) for name in names}
        arrays |= {"frames": np.array(self.frames), "times": np.array(self.times)}
        arrays["met"] = np.array(sorted(self.met), int)
        self.frames, self.times, self.rows = [], [], []
        return arrays


def read_seen(folder: Path) -> Seen | None:
    """Return what the files of a folder hold; None if nobody was seen."""
    chunks = [read_npz(path) for path in sorted(folder.glob("seen_*.npz"))]
    fields = Seen.__dataclass_fields__
    full = [chunk for chunk in chunks if "track" in chunk]
    if not full:
        return None
    return Seen(
        **{
            name: np.concatenate([x[name] for x in (chunks if name in FRAMES else full)])
            for name in fields
        }
    )


def _write(path: Path, sketch: Sketch, tracker: Tracker, identity: str) -> None:
    arrays = sketch.taken()
    arrays |= {f"state_{name}": values for name, values in tracker.state().items()}
    arrays["identity"] = np.array(identity)
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def _known(folder: Path, identity: str) -> list[dict[str, np.ndarray]]:
    """Return the whole chunks at the beginning that are of the same run."""
    chunks = []
    for number, path in enumerate(sorted(folder.glob("seen_*.npz"))):
        try:
            chunk = read_npz(path)
        except (OSError, ValueError):
            break
        is_next = path.name == f"seen_{number:05d}.npz" and _is_chunk(chunk, number)
        if not is_next or str(chunk.get("identity")) != identity:
            break
        chunks.append(chunk)
    return chunks


def _is_chunk(chunk: Mapping[str, np.ndarray], number: int) -> bool:
    """Say whether arrays are those of a full chunk of this number."""
    rows = ROWS if "track" in chunk else {}
    if misfit(chunk, {"frames": (CHUNK,), "times": (CHUNK,), "state_clock": (3,)} | rows):
        return False
    people = [len(chunk.get(f"state_{name}", ())) for name in STATE]
    last = CHUNK * (number + 1) - 1
    return bool(chunk["state_clock"][1] == last) and len(set(people)) == 1
