"""Two clips of Pose2Sim's demo (PyPI, BSD-3-Clause): one for choosing, one for judging.

Both are the same recordings of a man on a beam, by four cameras; into the second one the authors
put a rendered woman, who stands and moves her arms. The man is
for judging; of the second clip only the woman counts, for choosing. Her truth has two limits: the
cameras that she was rendered with have their principal points in the middle of the picture, unlike
the calibrated ones, which was found by where her joints meet; and her thighs and shanks are 0.8
times as long as the man's, so that errors in millimetres say less than angles, PA-MPJPE and
`mpjpe-scaled`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from benchmarks.groups.photos import CAMERAS, Source
from benchmarks.judges.movenet import MoveNetJudge
from benchmarks.multiview.cameras import Camera, read_cameras
from benchmarks.multiview.people import follow
from benchmarks.multiview.views import MAX_OFFSET, Case, Video, View, in_step, known_views
from benchmarks.real_photos import MIN_VISIBILITY, opened_video
from scripts.build.wheels import read_from_wheel
from smpler.models.detectors import Detection, Landmarks, PersonDetector
from smpler.utils.image import Box, CropWindow

WHEEL = "pose2sim==0.10.49"
SINGLE = "Pose2Sim/Demo_SinglePerson"
CALIBRATION = Source(
    WHEEL,
    f"{SINGLE}/calibration/Calib.qca.txt",
    "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5",
)
"""Of both clips."""
STEP = 2
"""Every STEP-th frame is used."""


@dataclass(frozen=True)
class Clip:
    """One person in the videos of four cameras."""

    videos: tuple[Source, ...]
    place: tuple[float, float] | None = None
    """Where the person stands, x and y of the world, metres; None: nobody else is there."""
    rendered: bool = False
    """The person was rendered: in step in all videos, by cameras that look through the middle."""
    every: int = 2
    """Step from one moment that gives cases to the next, in used frames."""


JUDGING = Clip(
    tuple(
        Source(WHEEL, f"{SINGLE}/videos/cam0{number}.mp4", sha256)
        for number, sha256 in enumerate(
            (
                "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
                "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
                "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
                "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
            ),
            start=1,
        )
    )
)
"""The man."""
CHOOSING = Clip(CAMERAS, place=(0.2, -0.4), rendered=True, every=1)
"""The woman."""
CLIPS = {"judging": JUDGING, "choosing": CHOOSING}


def read_clip(
    clip: Clip, judge: MoveNetJudge, detector: PersonDetector, wheel: Path | None = None
) -> tuple[list[Case], list[int]]:
    """Return the views of moments at which all joints are known, and the videos' lags.

    Args:
        clip: which one.
        judge: sees the joints.
        detector: of the people, where there are several.
        wheel: pose2sim's; downloaded if not given.

    Raises:
        FileNotFoundError: the wheel is missing or cannot be downloaded.
        ValueError: its content is another version's.
    """
    videos, cameras, offsets = videos_of(clip, judge, detector, wheel)
    return list(known_views(videos, cameras, offsets, clip.every)), offsets


def contents_of(clip: Clip, wheel: Path | None = None) -> list[bytes]:
    """Return the calibration's file and those of the videos; errors as of `read_clip`."""
    return [
        read_from_wheel(source.requirement, source.name, source.sha256, wheel)
        for source in (CALIBRATION, *clip.videos)
    ]


def videos_of(
    clip: Clip,
    judge: MoveNetJudge,
    detector: PersonDetector,
    wheel: Path | None = None,
    step: int = STEP,
    keep_photos: bool = True,
) -> tuple[list[Video], list[Camera], list[int]]:
    """Return what each camera sees of the person, the cameras, and the videos' lags in steps.

    Args:
        clip: see `read_clip`, as for the other arguments and the errors.
        judge: sees the joints.
        detector: of the people, where there are several.
        wheel: pose2sim's.
        step: every so manieth frame is used.
        keep_photos: in the views; without them all frames fit into memory.
    """
    calibration, *contents = contents_of(clip, wheel)
    cameras = read_cameras(calibration)

    def kept(view: View) -> View:
        return view if keep_photos else replace(view, photo=view.photo[:1, :1].copy())

    videos: list[Video]
    if clip.place is None:
        videos = []
        for camera, content in zip(cameras, contents, strict=True):
            frames = tqdm(frames_of(content, step), disable=None)
            found = (look(frame, camera, judge) for frame in frames)
            videos.append([None if view is None else kept(view) for view in found])
    else:
        looks, centred = [], []
        for camera, content in zip(cameras, contents, strict=True):
            seen = []
            for frame in tqdm(frames_of(content, step), disable=None):
                if clip.rendered and not seen:
                    camera = through_the_middle(camera, frame.shape[1::-1])
                seen.append([kept(x) for x in look_at_all(frame, camera, judge, detector)])
            centred.append(camera)
            looks.append(seen)
        cameras = centred
        videos = follow(looks, cameras, np.array(clip.place))
    offsets = [0] * len(videos)
    if not clip.rendered:
        cameras, offsets = in_step(videos, cameras, MAX_OFFSET * STEP // step)
    return videos, cameras, offsets


def through_the_middle(camera: Camera, size: Sequence[int]) -> Camera:
    """Return a camera with its principal point in the middle of the picture, and no distortion."""
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2, 2] = np.array(size) / 2
    return replace(camera, intrinsics=intrinsics, distortion=np.zeros(4))


def frames_of(video: bytes, step: int = STEP) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Return every so manieth frame as RGB."""
    with opened_video(video) as capture:
        number, (read, frame) = 0, capture.read()
        while read:
            if number % step == 0:
                yield frame[..., ::-1].copy()
            number, (read, frame) = number + 1, capture.read()


def look(photo: UInt8[np.ndarray, "h w 3"], camera: Camera, judge: MoveNetJudge) -> View | None:
    """Return what a camera sees of the only person; None if nobody is found."""
    found = judge.detector.detect(photo, max_people=1)
    person = judge.look(photo, found[0]) if found else None
    if person is None:
        return None
    rays, visible = seen_by(camera, person)
    return View(photo, CropWindow.for_box(found[0].box), rays, visible)


def look_at_all(
    photo: UInt8[np.ndarray, "h w 3"],
    camera: Camera,
    judge: MoveNetJudge,
    detector: PersonDetector,
) -> list[View]:
    """Return what a camera sees of each person."""
    found: Sequence[Detection] = detector.detect(photo)
    boxes: list[Box] = [detection.box for detection in found]
    views = []
    for number, detection in enumerate(found):
        person = judge.look(photo, detection)
        if person is not None:
            others = (*boxes[:number], *boxes[number + 1 :])
            window = CropWindow.for_box(detection.box)
            views.append(View(photo, window, *seen_by(camera, person), detection.box, others))
    return views


def seen_by(
    camera: Camera, person: Landmarks
) -> tuple[Float[np.ndarray, "12 2"], Float[np.ndarray, "12"]]:
    """Return a person's rays from the camera, and how visible the joints are, see `View`."""
    visible = np.where(person.visibility >= MIN_VISIBILITY, person.visibility, 0.0)
    return camera.rays(person.keypoints), visible
