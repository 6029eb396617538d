"""The console command `smpler`, and the demo: photos in; pictures, numbers and meshes out.

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
from smpler.models.answers import LOW_QUALITY
from smpler.models.detectors.landmarks import SIZES
from smpler.models.inference.backends import BACKENDS
from smpler.models.predictor import MAX_PEOPLE, Predictor
from smpler.photos import find_photos, output_names
from smpler.utils.drawing import pytorch3d_rasterizer, rasterizer
from smpler.utils.drawing.visualize import Rasterizer
from smpler.utils.export import PersonResult, save_people
from smpler.utils.flags import Parser, above_zero, positive
from smpler.utils.image import Box, read_photo
from smpler.utils.paths import SAMPLES, display

MIRROR_HELP = """average with the answer to the mirrored photo, which takes the network twice as
long; default: with the open weights"""
FIT_HELP = """bring the bodies onto the joints that BlazePose's landmark network sees; default: with
the open weights"""
LANDMARKS_HELP = """which of BlazePose's landmark networks looks at people; heavy takes four times
as long"""
FOCAL_HELP = "of the photo in pixels; default: as its EXIF data say, else its diagonal"
SAMPLE_HELP = "; default: a sample photo" if SAMPLES.is_dir() else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `smpler doctor`, or the demo on photos; return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["doctor"]:
        from smpler import doctor  # here, as no photo needs it

        return doctor.main(argv[1:])
    return demo(argv)


def demo(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0, or 2 when a photo or an argument was unusable."""
    arguments = parse_arguments(argv)
    warnings.showwarning = _print_note  # ty: ignore[invalid-assignment]  # made to be replaced
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that it cannot encode
    try:
        photos = find_photos(arguments.photos)
        arguments.out_dir.mkdir(parents=True, exist_ok=True)
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
    except (OSError, ValueError) as error:
        return _complain(error)
    failures = 0
    for path, name in zip(photos, output_names(photos), strict=True):
        try:
            photo = read_photo(path)
            people = predictor(photo, arguments.bbox, arguments.max_people, arguments.focal_length)
            line = f"{display(path)}: {summary(people)}"
            if people:
                written = save_people(
                    people,
                    photo.image,
                    arguments.out_dir,
                    name,
                    find_triangles,
                    arguments.json_mesh,
                )
                line += f" -> {display(written)}"
        except (OSError, ValueError) as error:
            failures += 1
            _complain(error)
            continue
        print(line)
    if failures and len(photos) > 1:
        print(f"{failures} of {len(photos)} photos were not done.", file=sys.stderr)
    return 2 if failures else 0


def summary(people: Sequence[PersonResult]) -> str:
    """Say in a few words who was found in a photo, and how good the answer is."""
    count = "1 person" if len(people) == 1 else f"{len(people)} people"
    if not people:
        return count
    qualities = ", ".join(
        f"{person.quality:.2f}{' (low)' if person.quality < LOW_QUALITY else ''}"
        for person in people
    )
    refused = [str(person.person) for person in people if person.fit in ("refused", "no landmarks")]
    note = f"; not fitted: {', '.join(refused)}" if refused else ""
    lens = f"focal length {people[0].focal_length:.0f} px ({people[0].focal_length_source})"
    return f"{count}, quality {qualities}, {lens}{note}"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; `--img_path` and `--device` are the published flags.

    Returns:
        The flags, and as `photos` every photo and folder that was given.
    """
    parser = Parser(
        description="Estimate the posed 3D body of the people in photos.",
        epilog="`smpler doctor` says what is present, what is missing and where files belong.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="*", metavar="PHOTO", help="photos, or folders of them")
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
    add("--landmarks", choices=list(SIZES), default="full", help=LANDMARKS_HELP)
    add("--focal_length", type=above_zero, help=FOCAL_HELP)
    add("--json_mesh", action="store_true", help="write the mesh into the json as well")
    add("--version", action="version", version=f"SMPLer {__version__}")
    arguments = parser.parse_args(argv)
    if arguments.img_path:
        arguments.photos.append(arguments.img_path)
    if not arguments.photos:
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
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    counts = {"cpu": lambda: 1, "cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}
    counts["mps"] = lambda: int(torch.backends.mps.is_available())
    if device is None or device.type not in counts:
        raise ValueError(f"--device {name} is no device; use cuda, cuda:NUMBER, mps, xpu or cpu.")
    if (device.index or 0) < counts[device.type]():
        return device
    if device.type == "cuda":
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


def _complain(error: Exception) -> int:
    print(f"Error: {error}", file=sys.stderr)
    return 2
