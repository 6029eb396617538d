"""The console command `smpler`, and the demo: photos or videos in; numbers, meshes, pictures out.

`smpler photo.jpg` is `python demo.py photo.jpg`; `smpler doctor` says what is present and missing.
"""

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from smpler import __version__
from smpler.models.detectors.landmarks import SIZES
from smpler.models.inference.backends import BACKENDS
from smpler.models.predictor import MAX_PEOPLE, Predictor
from smpler.photos import find_photos, is_video, output_names
from smpler.stills import Job, complain, process_photos
from smpler.utils.drawing import pytorch3d_rasterizer, rasterizer
from smpler.utils.drawing.visualize import Rasterizer
from smpler.utils.flags import Parser, above_zero, frame_rate, is_there, positive, weight, whole
from smpler.utils.image import Box
from smpler.utils.launcher import launched_local_rank, launched_processes, launched_rank
from smpler.utils.paths import SAMPLES, prepare_folder

MIRROR_HELP = """average with the answer to the mirrored photo, which takes the network twice as
long; default: with the open weights"""
FIT_HELP = """bring the bodies onto the joints that BlazePose's landmark network sees; default: with
the open weights"""
LANDMARKS_HELP = """which of BlazePose's landmark networks looks at people; heavy is better and four
times as slow; default: heavy in photos that are fitted, else full"""
FOCAL_HELP = "of the photo in pixels; default: as its EXIF data say, else its diagonal"
FLAGS_OF_CLIPS = {"start": 0.0, "stop": None, "every": 1, "meshes": False, "resume": False}
"""Flags that mean nothing for photos, and what they are when they are not given."""
SAMPLE_HELP = "; default: a sample photo" if SAMPLES.is_dir() else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `smpler doctor`, `view`, `web`, or the demo on photos; return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["doctor"]:
        from smpler import doctor  # here, as no photo needs it

        return doctor.main(argv[1:])
    if argv[:1] == ["view"]:
        from smpler.apps import view

        return view.main(argv[1:])
    if argv[:1] == ["web"]:
        from smpler.apps import web

        return web.main(argv[1:])
    return demo(argv)


def demo(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0, or 2 when a photo or an argument was unusable."""
    arguments = parse_arguments(argv)
    warnings.showwarning = _print_note  # ty: ignore[invalid-assignment]  # made to be replaced
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that it cannot encode
    try:
        jobs = find_jobs(arguments)
        prepare_folder(arguments.out_dir)
        find_triangles = choose_rasterizer(arguments.renderer)
        torch.manual_seed(0)  # untrained parameters are always the same
        predictor = Predictor.load(
            arguments.checkpoint,
            arguments.body,
            choose_device(arguments.device),
            arguments.backend,
            arguments.mirror,
            arguments.fit,
            arguments.landmarks,
        )
        if not arguments.bbox:
            predictor.load_person_detector()
        for is_clip in sorted({job.is_clip for job in jobs}):
            predictor.load_landmark_detector(is_clip)
    except (OSError, ValueError) as error:
        return complain(error)
    photos, clips = ([job for job in jobs if job.is_clip is kind] for kind in (False, True))
    failures = process_photos(photos, predictor, arguments, find_triangles)
    if clips:
        from smpler.clips import process_clips  # here, as no photo needs it

        failures += process_clips(clips, predictor, arguments, find_triangles)
    if failures and len(jobs) > 1:
        what = "photos" if not clips else "photos and clips"
        print(f"{failures} of {len(jobs)} {what} were not done.", file=sys.stderr)
    return 2 if failures else 0


def find_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return what is to be done: of several processes, by this one.

    Raises:
        ValueError: a folder holds nothing that can be read.
    """
    if arguments.webcam is not None:
        return [Job(Path(f"webcam{arguments.webcam}"), f"webcam{arguments.webcam}", True)]
    if arguments.fps is None:
        paths = find_photos(arguments.photos, videos=True)
    else:  # a folder is the frames of one clip
        paths = list(dict.fromkeys(arguments.photos))
    clips = [path.is_dir() or is_video(path) for path in paths]
    jobs = [Job(*job) for job in zip(paths, output_names(paths), clips, strict=True)]
    for flag in ("start", "stop", "every", "meshes", "resume"):
        if getattr(arguments, flag) != FLAGS_OF_CLIPS[flag] and not any(clips):
            raise ValueError(f"--{flag} is for clips, but no video or folder with --fps is given.")
    if arguments.bbox and any(clips):
        raise ValueError("--bbox is for photos; people of a clip are found and followed.")
    return jobs[launched_rank() :: launched_processes()]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; `--img_path` and `--device` are the published flags.

    Returns:
        The flags, and as `photos` every photo and folder that was given.
    """
    parser = Parser(
        description="Estimate the posed 3D body of the people in photos and videos.",
        epilog="`smpler doctor` says what is present, what is missing and where files belong; "
        "`smpler view` shows results in space; `smpler web` is the demo as a page in a browser.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="*", metavar="PHOTO", help="photos, videos, folders of them")
    add("--img_path", type=Path, help="a photo, or a folder of them" + SAMPLE_HELP)
    add("--device", default="cuda", help="cuda, cuda:1, mps, xpu, cpu; without a GPU, cpu")
    add("--checkpoint", type=Path, help="weights, published or ours; default: the open weights")
    add("--body", type=Path, help="SMPL's .pkl or .npz; default: the checkpoint's, SMPL, open body")
    add("--out_dir", type=Path, default=Path("outputs"), help="where results are written")
    add(
        "--bbox",
        type=_box,
        action="append",
        help="x,y,w,h of a person in photo pixels, instead of the detector; may be given again",
    )
    add(
        "--max_people",
        type=positive,
        default=MAX_PEOPLE,
        help="largest number of people of a photo, the most prominent first",
    )
    add("--renderer", choices=["torch", "pytorch3d"], default="torch", help="what draws the bodies")
    add("--backend", choices=BACKENDS, default="eager", help="what runs the network")
    add("--mirror", action=argparse.BooleanOptionalAction, help=MIRROR_HELP)
    add("--fit", action=argparse.BooleanOptionalAction, help=FIT_HELP)
    add("--landmarks", choices=list(SIZES), help=LANDMARKS_HELP)
    add("--focal_length", type=above_zero, help=FOCAL_HELP)
    add("--json_mesh", action="store_true", help="write the mesh into the json as well")
    add("--batch", type=positive, default=8, help="people of photos who are estimated together")
    add("--skip_done", action="store_true", help="leave out what has results in --out_dir already")
    clip = parser.add_argument_group("videos")
    add = clip.add_argument
    add("--fps", type=frame_rate, help="frames a second; then a folder is the frames of a clip")
    add("--webcam", type=whole, metavar="NUMBER", help="record a camera until --stop or Ctrl-C")
    add("--start", type=weight, default=0.0, help="seconds into the clip")
    add("--stop", type=above_zero, help="seconds into the clip; default: its end")
    add("--every", type=positive, default=1, help="take every so manieth frame")
    add("--meshes", action="store_true", help="write the mesh of every frame into the npz")
    add("--resume", action="store_true", help="go on with a clip where a run broke off")
    add("--version", action="version", version=f"SMPLer {__version__}")
    arguments = parser.parse_args(argv)
    if arguments.img_path:
        arguments.photos.append(arguments.img_path)
    if arguments.stop is not None and arguments.stop <= arguments.start:
        parser.error(f"--stop {arguments.stop:g} is not after --start {arguments.start:g}")
    if arguments.webcam is not None and (arguments.photos or arguments.fps):
        parser.error("--webcam takes its own pictures; give no photo, video or --fps beside it")
    if arguments.webcam is not None and arguments.resume:
        parser.error("--webcam records anew; to go on, give the recorded folder, with --fps")
    if not arguments.photos and arguments.webcam is None:
        sample = SAMPLES / "im01.png"
        if not sample.is_file():
            parser.error("no photo is given")
        arguments.photos.append(sample)
    return arguments


def choose_device(name: str) -> torch.device:
    """Return the device, or the CPU with one sentence when there is no such Nvidia GPU.

    Raises:
        ValueError: it is no device that the demo runs on, or it is not there.
    """
    if name == "cuda" and launched_processes() > 1:
        name = f"cuda:{launched_local_rank()}"  # each process its own
    try:
        if is_there(name):
            return torch.device(name)
    except ValueError as error:
        raise ValueError(f"--device {error}.") from None
    if name.startswith("cuda"):
        print(f"Note: no GPU answers to {name}; the CPU does it.", file=sys.stderr)
        return torch.device("cpu")
    raise ValueError(f"--device {name} is not there: no such device answers torch; use cpu.")


def choose_rasterizer(name: str) -> Rasterizer:
    """Return what finds the triangles of the pictures.

    Raises:
        ValueError: pytorch3d is asked for but not installed.
    """
    if name == "torch":
        return rasterizer.rasterize
    if not pytorch3d_rasterizer.available():
        raise ValueError(
            "--renderer pytorch3d: pytorch3d cannot be imported here; leave the flag away, the "
            "default draws the same picture."
        )
    return pytorch3d_rasterizer.rasterize


def _box(text: str) -> Box:
    """Return x, y, width and height of a flag's value."""
    try:
        x, y, width, height = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h, four numbers") from None
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise argparse.ArgumentTypeError(f"{text!r} has no positive width and height")
    return x, y, width, height


def _print_note(message: Warning | str, *_: object) -> None:
    """Print a warning as one sentence, in the place of `warnings.showwarning`."""
    print(f"Note: {message}", file=sys.stderr)
