"""How well bodies fit people in real photos, by BlazePose's landmark network or MoveNet.

The judge (one of `benchmarks.judges`) and the predictor see the same people, those whom the person
detector finds. Their joints in the picture are compared. Mistakes that both make do not show in the
numbers, so that the pictures must be looked at as well. BlazePose is a biased judge: a model on
BlazePose's own network makes similar mistakes, and bodies that are fitted to BlazePose's landmarks
agree with them by construction. MoveNet is independent of both.
"""

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from benchmarks.judges.landmarks import MIN_TORSO, LandmarkJudge, pck, torso_length
from benchmarks.judges.movenet import MoveNetJudge
from scripts.build.wheels import read_from_wheel
from smpler.command import find_photos
from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.everybody import is_same
from smpler.models.detectors.landmarks import SEEN_KEYPOINTS
from smpler.models.observation import is_same_body
from smpler.models.predictor import Predictor
from smpler.utils.camera import default_focal_length
from smpler.utils.drawing.overlay import draw_bodies, place_body
from smpler.utils.drawing.visualize import palette
from smpler.utils.image import Box, CropWindow, common_area, read_image

Photo = tuple[str, UInt8[np.ndarray, "h w 3"]]

VIDEO_WHEEL, VIDEO = "sports2d==0.8.34", "Sports2D/Demo/demo.mp4"
"""Two people outdoors (BSD-3-Clause)."""
VIDEO_SHA256 = "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"
PEOPLE_IN_VIDEO = 2
MIN_VISIBILITY = 0.5
"""Visibility from which on a joint counts as seen by the judge."""
GREEN, RED = (0, 255, 0), (255, 0, 0)


@dataclass(frozen=True)
class Comparison:
    """One person of a photo."""

    photo: str
    errors: Float[np.ndarray, "12"]
    """Between judge and body, in the judge's torso lengths."""
    shown: Bool[np.ndarray, "12"]
    """Whether the judge sees the joint."""

    @property
    def pck(self) -> float:
        """Return the share of the shown joints within 0.2 torso lengths."""
        return pck(self.errors[None], self.shown[None])


def photos_of(folder: Path) -> Iterator[Photo]:
    """Read the photos of a folder in order of their names.

    Raises:
        ValueError: it holds none; raised at once, before the first is asked for.
    """
    return ((path.name, read_image(path)) for path in find_photos([folder]))


def video_frames(count: int, wheel: Path | None = None) -> Iterator[Photo]:
    """Read frames of Sports2D's video, evenly spread over it.

    Args:
        count: number of frames.
        wheel: Sports2D's; downloaded if not given.

    Raises:
        ValueError: the wheel is another one; raised at once, before the first frame is asked for.
    """
    return _spread_frames(read_from_wheel(VIDEO_WHEEL, VIDEO, VIDEO_SHA256, wheel), count)


def _spread_frames(content: bytes, count: int) -> Iterator[Photo]:
    with opened_video(content) as video:
        total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        chosen = set(np.linspace(0, total - 1, count + 2).astype(int)[1:-1])
        for number in range(total):
            read, frame = video.read()
            if read and number in chosen:
                yield f"sports2d frame {number}", frame[..., ::-1].copy()


@contextmanager
def opened_video(content: bytes) -> Generator[cv2.VideoCapture]:
    """Open a video for reading, from the content of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        path.write_bytes(content)
        video = cv2.VideoCapture(str(path))
        try:
            yield video
        finally:
            video.release()


def compare(
    predictor: Predictor,
    judge: LandmarkJudge | MoveNetJudge,
    photo: Photo,
    max_people: int = 1,
) -> tuple[list[Comparison], UInt8[np.ndarray, "h w 3"]]:
    """Compare predictor and judge on the people of a photo.

    Returns:
        One comparison for each person whom the judge recognises, and the photo with the bodies
        drawn over it: the judge's joints as green dots, the bodies' as red ones.
    """
    name, image = photo
    detections = judge.detector.detect(image, max_people=max_people)
    pairs = [(detection, judge.look(image, detection)) for detection in detections]
    pairs = seen_once([(box, person) for box, person in pairs if person is not None])
    if not pairs:
        return [], image
    boxes, others = boxes_of(predictor, image, [detection for detection, _ in pairs])
    windows = [CropWindow.for_box(box) for box in boxes]
    size = (image.shape[1], image.shape[0])
    focal_length = default_focal_length(size)
    people = predictor.look(image, windows, boxes, others, focal_length).people
    keypoints, vertices, translation = (
        field.float().cpu().numpy()
        for field in (people.estimate.keypoints_2d, people.estimate.vertices, people.translation)
    )
    faces, colors = predictor.model.smpl.body.faces, palette(len(pairs))
    comparisons, bodies, dots = [], [], []
    for number, (window, (_, person)) in enumerate(zip(windows, pairs, strict=True)):
        found = window.to_photo(keypoints[number, SEEN_KEYPOINTS])
        errors = errors_of(person, found, window.width)
        comparisons.append(Comparison(name, errors, person.visibility >= MIN_VISIBILITY))
        placed = vertices[number] + translation[number]
        color, middle = colors[number], np.array(size) / 2
        bodies.append(place_body(placed, faces, color, focal_length, middle))
        radius = max(2, round(window.width / 90))
        dots += [(*place, radius, GREEN) for place in person.keypoints]
        dots += [(*place, radius, RED) for place in found]
    drawn = draw_bodies(image, bodies)
    for x, y, radius, color in dots:
        cv2.circle(drawn, (round(float(x)), round(float(y))), radius, color, cv2.FILLED)
    return comparisons, drawn


def seen_once(
    pairs: Sequence[tuple[Detection, Landmarks]],
) -> list[tuple[Detection, Landmarks]]:
    """Leave out whom the judge sees in the same place as an earlier one: the same person twice."""
    kept: list[tuple[Detection, Landmarks]] = []
    for detection, person in pairs:
        if not any(is_same_body(person, one, box.box) for box, one in kept):
            kept.append((detection, person))
    return kept


def boxes_of(
    predictor: Predictor, image: UInt8[np.ndarray, "h w 3"], squares: Sequence[Detection]
) -> tuple[list[Box], list[Box]]:
    """Return the predictor's own boxes of a judge's people, and those of other people.

    A judge's square stands for a person whom the predictor's detector does not find.
    """
    found = list(predictor.load_person_detector().detect(image))
    boxes = []
    for square in squares:
        same = [person for person in found if is_same(square, person)]
        if same:
            nearest = max(same, key=lambda person: common_area(square.box, person.box))
            found.remove(nearest)
        boxes.append(nearest.box if same else square.box)
    return boxes, [person.box for person in found]


def errors_of(
    person: Landmarks, keypoints: Float[np.ndarray, "12 2"], side: float
) -> Float[np.ndarray, "12"]:
    """Return the distances of keypoints from the judge's, in the judge's torso lengths.

    Args:
        person: where the judge sees the joints.
        keypoints: of the body, photo pixels.
        side: of the crop, photo pixels.
    """
    torso = max(torso_length(person.keypoints), MIN_TORSO * side)
    return np.linalg.norm(person.keypoints - keypoints, axis=1) / torso


def total_pck(comparisons: list[Comparison]) -> float:
    """Return PCK@0.2 over the shown joints of all people."""
    errors, shown = (
        np.stack([getattr(c, name) for c in comparisons]) for name in ("errors", "shown")
    )
    return pck(errors, shown)
