"""The console command `smpler`, and the demo: photos in; pictures, numbers and meshes out.

`smpler photo.jpg` is `python demo.py photo.jpg`; `smpler doctor` says what is present and missing.
"""

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from smpler import __version__
from smpler.models.predictor import BACKENDS, MAX_PEOPLE, Predictor
from smpler.utils import pytorch3d_rasterizer, rasterizer
from smpler.utils.export import save_people
from smpler.utils.flags import Parser, above_zero, positive
from smpler.utils.image import IMAGE_SUFFIXES, Box, read_image
from smpler.utils.paths import SAMPLES, display
from smpler.utils.visualize import Rasterizer

MIRROR_HELP = """average with the answer to the mirrored photo, which takes the network twice as
long; default: with the open weights"""
FIT_HELP = """bring the bodies onto the joints that BlazePose's landmark network sees; default: with
the open weights"""


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
        )
        if not arguments.bbox:
            predictor.load_person_detector()
    except (OSError, ValueError) as error:
        return _complain(error)
    failures = 0
    for path, name in zip(photos, output_names(photos), strict=True):
        try:
            photo = read_image(path)
            people = predictor(
                photo,
                [arguments.bbox] if arguments.bbox else None,
                arguments.max_people,
                arguments.focal_length,
                name=path.name,
            )
            written = save_people(people, photo, arguments.out_dir, name, find_triangles)
        except (OSError, ValueError) as error:
            failures += 1
            _complain(error)
            continue
        count = "1 person" if len(people) == 1 else f"{len(people)} people"
        print(f"{display(path)}: {count} -> {display(written)}")
    if failures and len(photos) > 1:
        print(f"{failures} of {len(photos)} photos were not done.", file=sys.stderr)
    return 2 if failures else 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; `--img_path` and `--device` are the published flags.

    Returns:
        The flags, and as `photos` every photo and folder that was given.
    """
    parser = Parser(
        description="Estimate the posed 3D body of the people in photos.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="*", metavar="PHOTO", help="photos, or folders of them")
    add("--img_path", type=Path, help="a photo, or a folder of them; default: a sample photo")
    add("--device", default="cuda", help="cuda, cuda:1, cpu; without a GPU the CPU does it")
    add("--checkpoint", type=Path, help="weights, published or ours; default: the open weights")
    add("--body", type=Path, help="SMPL's .pkl or .npz; default: the checkpoint's, SMPL, open body")
    add("--out_dir", type=Path, default=Path("outputs"), help="where results are written")
    add("--bbox", type=_box, help="x,y,w,h of the person in photo pixels, instead of the detector")
    add("--max_people", type=positive, default=MAX_PEOPLE, help="at most so many people of a photo")
    add("--renderer", choices=["torch", "pytorch3d"], default="torch", help="what draws the bodies")
    add("--backend", choices=BACKENDS, default="eager", help="what runs the network")
    add("--mirror", action=argparse.BooleanOptionalAction, help=MIRROR_HELP)
    add("--fit", action=argparse.BooleanOptionalAction, help=FIT_HELP)
    add("--focal_length", type=above_zero, help="of the photo in pixels; default: its diagonal")
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


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Return the photos, and those of each folder in order of their names; each photo once."""
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        photos = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not photos:
            raise ValueError(
                f"{display(path)} holds no photo; known are {', '.join(sorted(IMAGE_SUFFIXES))}."
            )
        found += photos
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def output_names(photos: Sequence[Path]) -> list[str]:
    """Name the results after the photos: `a`, but `a_jpg` and `a_png` where several are called a.

    No two photos get the same name: where these clash as well, a number is appended.
    """
    stems = Counter(photo.stem for photo in photos)
    taken = {stem for stem, count in stems.items() if count == 1}
    names = []
    for photo in photos:
        name = photo.stem
        if stems[name] > 1:
            name = first_name = f"{photo.stem}_{photo.suffix[1:]}"
            number = 1
            while name in taken:
                number += 1
                name = f"{first_name}_{number}"
            taken.add(name)
        names.append(name)
    return names


def choose_device(name: str) -> torch.device:
    """Return the device, or the CPU with one sentence when there is no such GPU."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} is no device; use cuda, cuda:0 or cpu.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        print(f"Note: no GPU answers to {name}; the CPU does it.", file=sys.stderr)
        return torch.device("cpu")
    return device


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
