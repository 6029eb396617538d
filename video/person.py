"""From what a clip shows of a person, frame by frame, to the results of a track."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from smpler import __version__
from smpler.models.answers import Answer, numbers_of, qualities
from smpler.models.fitting import LANDMARK_SCATTER, Prior, misfit
from smpler.models.observation import Observation, SeenLandmarks
from smpler.models.placement import Pinhole, Placement, place, see
from smpler.models.predictor import Predictor
from smpler.utils.geometry import nearest_rotation
from smpler.utils.image import CropWindow
from smpler.video.motion import Settings, course_of, rows_of
from smpler.video.track_result import SCHEMA, TrackResult
from smpler.video.watch import Seen

BATCH = 64
"""Frames that are posed together."""
STACKED = (
    "quality", "pose", "rotmat", "cam", "translation", "joints_3d", "joints_2d",
    "joints_confidence", "keypoints_confidence",
)  # fmt: skip
"""What `numbers_of` says of each frame, and a track has of all."""


@dataclass(frozen=True)
class View:
    """What a clip was taken with."""

    name: str
    """Of its file."""
    size: tuple[int, int]
    """Width and height, pixels."""
    fps: float
    """Of the used frames."""
    focal_length: float
    """Pixels."""
    focal_length_source: str
    """See `PersonResult`."""


@dataclass(frozen=True, eq=False)
class Track:
    """What is seen of one person, in all frames from the first to the last."""

    steps: Int[np.ndarray, "t"]
    """Which of the used frames, without a gap."""
    is_seen: Bool[np.ndarray, "t"]
    rows: dict[str, np.ndarray]
    """Fields of `Seen`, in the frames where the person is seen."""

    @classmethod
    def of(cls, seen: Seen, number: int) -> "Track":
        """Return one person's part of what is seen; see `Sighting.track`."""
        rows = seen.of(seen.track == number)
        steps = np.arange(rows["frame"][0], rows["frame"][-1] + 1)
        return cls(steps, np.isin(steps, rows["frame"]), rows)

    def filled(self, name: str) -> np.ndarray:
        """Return a field in all frames: where nobody is seen, zeros."""
        values = np.zeros((len(self.steps), *self.rows[name].shape[1:]), np.float32)
        values[self.is_seen] = self.rows[name]
        return values

    def nearest(self, name: str) -> np.ndarray:
        """Return a field in all frames: where nobody is seen, that of the frame before."""
        return self.rows[name][np.cumsum(self.is_seen) - 1]

    def windows(self) -> list[CropWindow]:
        """Return the crops."""
        return [CropWindow(*row) for row in self.nearest("window").astype(int).tolist()]


def track_result(
    track: Track,
    number: int,
    seen: Seen,
    view: View,
    predictor: Predictor,
    settings: Settings,
    meshes: bool,
) -> TrackResult:
    """Return the results of a person.

    Args:
        track: of the person.
        number: in the results, from 1.
        seen: in the whole clip.
        view: what the clip was taken with.
        predictor: that saw it.
        settings: of the motion; a predictor that does not fit only smooths.
        meshes: keep the vertices of each frame.
    """
    settings = replace(settings, fit=settings.fit and predictor.fit)
    windows = track.windows()
    observation, known = known_of(track, windows, view, predictor)
    is_seen = torch.from_numpy(track.is_seen).to(observation.presence.device)
    with torch.inference_mode():
        quality = qualities(known.network, observation, known.start.joints) * is_seen
    course = course_of(
        predictor.model.smpl, known.start, observation.evidence, is_seen, view.fps, settings
    )
    scatter = known.start.joints
    numbers = []
    for part, people in meshed(predictor, course.people):
        of_part = Observation(sliced(observation.landmarks, part), {}, observation.presence[part])
        of_joints = None if scatter is None else scatter[part]
        answer = Answer(people, of_part, course.fit[part], quality[part], of_joints)
        middle = np.array(view.size) / 2
        for row, window in enumerate(windows[part]):
            of_frame = numbers_of(answer, row, window, view.focal_length, middle)
            numbers.append(of_frame if meshes else of_frame | {"vertices": None})
    return stacked(numbers, track, number, seen, view, predictor, windows)


def stacked(
    numbers: Sequence[dict],
    track: Track,
    number: int,
    seen: Seen,
    view: View,
    predictor: Predictor,
    windows: Sequence[CropWindow],
) -> TrackResult:
    """Return the numbers of the frames as those of a track."""
    body, first = predictor.model.smpl.body, numbers[0]

    def of_all(name: str) -> np.ndarray:
        return np.stack([x[name] for x in numbers])

    def if_any(name: str) -> np.ndarray | None:
        return None if first[name] is None else of_all(name)

    spreads = [x["joints_std"] for x in numbers]
    unknown = np.full(24, np.nan, np.float32)
    joints_std = np.stack([unknown if x is None else x for x in spreads])
    residuals = [np.nan if x["fit_residual"] is None else x["fit_residual"] for x in numbers]
    return TrackResult(
        schema=SCHEMA,
        version=__version__,
        video=view.name,
        image_size=np.array(view.size),
        fps=view.fps,
        track=number,
        frames=seen.frames[track.steps],
        times=seen.times[track.steps],
        is_seen=track.is_seen,
        box=track.nearest("box"),
        box_score=track.nearest("box_score"),
        fit=tuple(x["fit"] for x in numbers),
        fit_residual=np.array(residuals),
        crop=np.array([[w.x, w.y, w.width, w.height] for w in windows]),
        body=body.name,
        body_sha256=body.sha256,
        weights=predictor.weights,
        weights_sha256=predictor.weights_sha256,
        betas=first["betas"],
        focal_length=view.focal_length,
        focal_length_source=view.focal_length_source,
        principal_point=np.array(view.size) / 2,
        joints_std=None if all(x is None for x in spreads) else joints_std,
        joint_names=first["joint_names"],
        keypoint_names=first["keypoint_names"],
        keypoints_3d=if_any("keypoints_3d"),
        keypoints_2d=if_any("keypoints_2d"),
        vertices=if_any("vertices"),
        faces=body.faces,
        **{name: of_all(name) for name in STACKED},
    )


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a person in each frame by itself."""

    network: Placement
    """The network's answer."""
    start: Prior
    """The same, with what the landmarks are lifted to."""


def known_of(
    track: Track, windows: Sequence[CropWindow], view: View, predictor: Predictor
) -> tuple[Observation, Known]:
    """Return what is seen of a person, sides resolved, and what is known in each frame."""
    smpl, like = predictor.model.smpl, predictor.model.mean
    pinhole = Pinhole.of(windows, view.size, view.focal_length).to(like)
    names = tuple(predictor.load_landmark_detector(is_clip=True).names)
    parts = (track.filled(name) for name in ("places", "visibility", "weights", "is_own"))
    landmarks = SeenLandmarks(names, *(torch.from_numpy(x).to(like) for x in parts))
    presence = torch.from_numpy(track.filled("presence")).to(like)
    rotmat, betas, cam = (x.to(like) for x in network_between(track))
    placed, starts = [], []
    with torch.inference_mode():
        for part in batches(len(windows)):
            estimate = smpl.estimate(rotmat[part], betas[part], cam[part], "skeleton")
            cameras = Pinhole(pinhole.focal[part], pinhole.center[part])
            placed.append(place(smpl, estimate, cameras, predictor.fit, "skeleton"))
    people = joined(placed)
    observation = Observation(landmarks, {}, presence)
    if not predictor.fit:
        return observation, Known(people, Prior.of_network(people))
    whose = other_sides(people, observation)
    observation = replace(observation, landmarks=landmarks.with_swapped_sides(whose))
    for part in batches(len(windows)):
        of_part = Observation(sliced(observation.landmarks, part), {}, presence[part])
        starts.append(predictor.prior(rows_of(people, part), of_part))
    return observation, Known(people, joined_priors(starts))


def network_between(track: Track) -> tuple[Tensor, Tensor, Tensor]:
    """Return the network's rotations, shapes and cameras in all frames.

    Where it did not look they are interpolated; rotations as matrices.
    """
    looked = track.rows["has_network"]
    known = np.flatnonzero(track.is_seen)[looked]
    frames = np.arange(len(track.steps))
    right = np.searchsorted(known, frames).clip(0, len(known) - 1)
    left = np.where(known[right] > frames, np.maximum(right - 1, 0), right)
    span = np.maximum(known[right] - known[left], 1)
    share = torch.from_numpy(((frames - known[left]) / span).clip(0, 1)).float()

    def between(name: str) -> Tensor:
        values = torch.from_numpy(track.rows[name][looked]).float()
        return torch.lerp(values[left], values[right], share.view(-1, *[1] * (values.ndim - 1)))

    return nearest_rotation(between("rotmat")), between("betas"), between("cam")


def other_sides(people: Placement, seen: Observation) -> Bool[Tensor, "t"]:
    """Say in which frames left and right landmarks are to be exchanged.

    The choice that costs least over all frames: in each, how badly the network's answer fits, see
    `are_swapped`; from one to the next, how far the landmarks then jump (Viterbi's algorithm).
    """
    both = [seen.landmarks, seen.landmarks.with_swapped_sides(torch.ones_like(seen.presence) > 0)]
    with torch.inference_mode():
        costs = torch.stack(
            [misfit(people, Observation(x, {}, seen.presence).evidence) for x in both], dim=1
        )
    costs = costs.double().cpu().numpy()
    places = [x.places.double().cpu().numpy() for x in both]
    counts = (seen.landmarks.weights > 0).double().cpu().numpy()
    total, come_from = costs[0], []
    for row in range(1, len(costs)):
        weights = counts[row] * counts[row - 1]
        jump = np.array(
            [
                [
                    (weights * np.square(places[b][row] - places[a][row - 1]).sum(axis=1)).sum()
                    for b in (0, 1)
                ]
                for a in (0, 1)
            ]
        )
        ways = total[:, None] + jump / LANDMARK_SCATTER**2 + costs[row]
        come_from.append(ways.argmin(axis=0))
        total = ways.min(axis=0)
    state = int(total.argmin())
    states = [state]
    for back in reversed(come_from):
        state = int(back[state])
        states.append(state)
    return torch.tensor(states[::-1], device=seen.presence.device) > 0


def meshed(predictor: Predictor, people: Placement) -> Iterator[tuple[slice, Placement]]:
    """Yield people with their vertices, batch by batch."""
    with torch.inference_mode():
        for part in batches(len(people.translation)):
            some = rows_of(people, part)
            rotmat, betas = some.estimate.rotmat, some.estimate.betas
            smpl = predictor.model.smpl
            yield part, see(smpl, rotmat, betas, some.translation, some.pinhole, "mesh")


def batches(count: int) -> Iterator[slice]:
    """Yield the rows of each batch."""
    for first in range(0, count, BATCH):
        yield slice(first, min(first + BATCH, count))


def sliced(landmarks: SeenLandmarks, part: slice) -> SeenLandmarks:
    """Return the landmarks of some rows."""
    parts = (landmarks.places, landmarks.visibility, landmarks.weights, landmarks.is_own)
    return SeenLandmarks(landmarks.names, *(x[part] for x in parts))


def joined(people: Sequence[Placement]) -> Placement:
    """Return people one after the other."""
    first = people[0].estimate
    fields = {
        name: None if value is None else torch.cat([getattr(x.estimate, name) for x in people])
        for name, value in vars(first).items()
    }
    pinhole = Pinhole.joined([x.pinhole for x in people])
    translation = torch.cat([x.translation for x in people])
    return Placement(replace(first, **fields), translation, pinhole)


def joined_priors(priors: Sequence[Prior]) -> Prior:
    """Return what is known of people, one after the other."""
    parts = {
        name: torch.cat([getattr(x, name) for x in priors])
        for name in ("rotation", "depth", "betas")
    }
    joints = [x.joints for x in priors if x.joints is not None]
    together = torch.cat(joints) if len(joints) == len(priors) else None
    return Prior(joined([x.people for x in priors]), **parts, joints=together)
