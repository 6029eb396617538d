"""From photos to posed bodies: python demo.py --img_path samples/im01.png."""

import argparse
import hashlib
import sys
import warnings
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from torch import nn

from smpler import __version__
from smpler.models.detectors.landmarks import LandmarkDetector
from smpler.models.detectors.person import PersonDetector
from smpler.models.fitting import fit_to_photo
from smpler.models.smpl import Estimate
from smpler.models.smpler import SMPLer
from smpler.models.weights.checkpoint import load_model, released_weights
from smpler.utils import pytorch3d_rasterizer, rasterizer
from smpler.utils.export import (
    SCHEMA,
    PersonResult,
    save_json,
    save_mesh,
    save_npz,
)
from smpler.utils.geometry import default_focal_length, full_image_camera, rotmat_to_axis_angle
from smpler.utils.image import IMAGE_SUFFIXES, Box, CropWindow, crop, read_image, write_image
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES
from smpler.utils.paths import SAMPLES, display
from smpler.utils.visualize import Rasterizer, overlay, palette, side_by_side, side_view

BACKENDS = ("eager", "fused", "onnxruntime")
MIRROR_HELP = """average with the answer to the mirrored photo, which takes the network twice as
long; default: with the open weights"""
FIT_HELP = """bring the bodies onto the joints that BlazePose's landmark network sees, see README;
default: with the open weights"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; `--img_path` and `--device` are the published flags."""
    parser = argparse.ArgumentParser(
        description="Estimate the posed 3D body of the people in photos.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--img_path", type=Path, default=SAMPLES / "im01.png", help="a photo, or a folder of them")
    add("--device", default="cuda", help="cuda, cuda:1, cpu; without a GPU the CPU does it")
    add("--checkpoint", type=Path, help="weights, published or ours; default: the open weights")
    add("--body", type=Path, help="SMPL's .pkl or .npz; default: the checkpoint's, SMPL, open body")
    add("--out_dir", type=Path, default=Path("outputs"), help="where results are written")
    add("--bbox", type=_box, help="x,y,w,h of the person in photo pixels, instead of the detector")
    add("--max_people", type=_positive, default=1, help="at most so many people of each photo")
    add("--renderer", choices=["torch", "pytorch3d"], default="torch", help="what draws the bodies")
    add("--backend", choices=BACKENDS, default="eager", help="what runs the network, see README")
    add("--mirror", action=argparse.BooleanOptionalAction, help=MIRROR_HELP)
    add("--fit", action=argparse.BooleanOptionalAction, help=FIT_HELP)
    add("--focal_length", type=_focal_length, help="of the photo in pixels; default: its diagonal")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return 0, or 2 when a photo or an argument was unusable."""
    arguments = parse_arguments(argv)
    warnings.showwarning = lambda message, *_: print(f"Note: {message}", file=sys.stderr)
    try:
        photos = find_photos(arguments.img_path)
        arguments.out_dir.mkdir(parents=True, exist_ok=True)
        device = choose_device(arguments.device)
        choose_rasterizer(arguments.renderer)
        torch.manual_seed(0)  # without weights, the initial parameters are always the same
        checkpoint = arguments.checkpoint or released_weights()
        model = load_model(None, checkpoint, arguments.body, device=device)
        model = choose_backend(model, arguments.backend)
        for name in ("mirror", "fit"):
            if getattr(arguments, name) is None:
                setattr(arguments, name, arguments.checkpoint is None and checkpoint is not None)
        landmarks = LandmarkDetector.load(device=device) if arguments.fit else None
        detector = None if arguments.bbox else PersonDetector.load(device=device)
    except (OSError, ValueError) as error:
        return _complain(error)
    weights = describe_weights(checkpoint)
    failures = 0
    for path, name in zip(photos, output_names(photos), strict=True):
        try:
            process_photo(path, name, model, detector, landmarks, weights, arguments)
        except (OSError, ValueError) as error:
            failures += 1
            _complain(error)
    if failures and len(photos) > 1:
        print(f"{failures} of {len(photos)} photos were not done.", file=sys.stderr)
    return 2 if failures else 0


def find_photos(path: Path) -> list[Path]:
    """Return the photo itself, or the photos of a folder in order of their names."""
    if not path.is_dir():
        return [path]
    photos = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not photos:
        raise ValueError(
            f"{display(path)} holds no photo; known are {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return photos


def output_names(photos: list[Path]) -> list[str]:
    """Name the results after the photos; a.jpg and a.png in one folder stay apart."""
    stems = Counter(photo.stem for photo in photos)
    return [
        photo.stem if stems[photo.stem] == 1 else f"{photo.stem}_{photo.suffix[1:]}"
        for photo in photos
    ]


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


def choose_backend(model: SMPLer, name: str) -> nn.Module:
    """Return the model itself or a faster copy, which takes a while to make.

    Raises:
        ValueError: the backend does not run here, or is not installed.
    """
    if name == "eager":
        return model
    try:
        return model.optimize_for_inference(backend="torch" if name == "fused" else name)
    except ImportError as error:
        raise ValueError(f"--backend {name}: {error}") from error


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


def describe_weights(checkpoint: Path | None) -> tuple[str, str]:
    """Return the name of the weights and the hash of their file."""
    if checkpoint is None:
        return "initial parameters", ""
    with checkpoint.open("rb") as file:
        return checkpoint.name, hashlib.file_digest(file, "sha256").hexdigest()


def process_photo(
    path: Path,
    name: str,
    model: SMPLer,
    detector: PersonDetector | None,
    landmarks: LandmarkDetector | None,
    weights: tuple[str, str],
    arguments: argparse.Namespace,
) -> None:
    """Find the people, estimate their bodies, write pictures, numbers and meshes."""
    photo = read_image(path)
    if arguments.bbox:
        _check_box(arguments.bbox, photo.shape, path)
        boxes = [(arguments.bbox, "given", 1.0)]
    else:
        boxes = detect_people(photo, detector, arguments.max_people, path)
    windows = [CropWindow.for_box(box) for box, _, _ in boxes]
    estimate = estimate_people(photo, windows, model, arguments.mirror, landmarks)
    size = (photo.shape[1], photo.shape[0])
    people = []
    for number, ((box, source, score), window) in enumerate(zip(boxes, windows, strict=True)):
        person = PersonResult(
            schema=SCHEMA,
            version=__version__,
            image=path.name,
            image_size=np.array(size),
            person=number,
            box=np.array(box),
            box_source=source,
            box_score=score,
            crop=np.array(astuple(window)),
            body=model.smpl.body.name,
            body_sha256=model.smpl.body.sha256,
            weights=weights[0],
            weights_sha256=weights[1],
            faces=model.smpl.body.faces,
            **person_numbers(
                estimate, number, window, size, arguments.focal_length or default_focal_length(size)
            ),
        )
        people.append(person)
    find_triangles = choose_rasterizer(arguments.renderer)
    write_results(photo, people, arguments.out_dir, name, find_triangles)
    count = "1 person" if len(people) == 1 else f"{len(people)} people"
    print(f"{display(path)}: {count} -> {display(arguments.out_dir / name)}_out.png")


def detect_people(
    photo: np.ndarray, detector: PersonDetector, max_people: int, path: Path
) -> list[tuple[Box, str, float]]:
    """Return (box, source, score) of the best people; the whole photo when there is nobody."""
    found = detector.detect(photo, max_people=max_people)
    if found:
        return [(person.box, "detector", person.score) for person in found]
    warnings.warn(
        f"{display(path)}: no person was found, so the whole photo is taken; --bbox x,y,w,h says "
        "where the person is.",
        stacklevel=2,
    )
    height, width = photo.shape[:2]
    return [((0.0, 0.0, float(width), float(height)), "photo", 0.0)]


def estimate_people(
    photo: np.ndarray,
    windows: list[CropWindow],
    model: SMPLer,
    mirror: bool = False,
    landmarks: LandmarkDetector | None = None,
) -> Estimate:
    """Run the model on all crops of a photo and return its last estimate.

    Args:
        mirror: average with the answer to the mirrored crops.
        landmarks: bring the bodies onto what it sees.
    """
    crops = np.stack([crop(photo, window) for window in windows])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).to(model.mean.device)
    with torch.inference_mode():
        estimate = model(images)[-1]
        if mirror:
            estimate = model.smpl.average_with_mirrored(estimate, model(images.flip(-1))[-1])
    if landmarks is None:
        return estimate
    return fit_to_photo(model.smpl, estimate, photo, windows, landmarks)


def person_numbers(
    estimate: Estimate,
    number: int,
    window: CropWindow,
    size: tuple[int, int],
    focal_length: float,
) -> dict:
    """Turn one person of the batch into the numbers of `PersonResult`."""

    def of_person(batch: torch.Tensor | None) -> np.ndarray | None:
        return None if batch is None else batch[number].float().cpu().numpy()

    def in_photo(batch: torch.Tensor | None) -> np.ndarray | None:
        return None if batch is None else window.to_photo(of_person(batch))

    rotmat, cam = of_person(estimate.rotmat), of_person(estimate.cam)
    crop_box = tuple(float(x) for x in (window.x, window.y, window.width, window.height))
    return {
        "pose": rotmat_to_axis_angle(rotmat).reshape(-1).astype(np.float32),
        "rotmat": rotmat,
        "betas": of_person(estimate.betas),
        "cam": cam,
        "focal_length": focal_length,
        "principal_point": np.array(size) / 2,
        "translation": full_image_camera(cam, crop_box, size, focal_length),
        "vertices": of_person(estimate.vertices),
        "joints_3d": of_person(estimate.joints),
        "joints_2d": in_photo(estimate.joints_2d),
        "joint_names": SMPL_NAMES,
        "keypoints_3d": of_person(estimate.keypoints_3d),
        "keypoints_2d": in_photo(estimate.keypoints_2d),
        "keypoint_names": KEYPOINT_NAMES,
    }


def write_results(
    photo: np.ndarray,
    people: list[PersonResult],
    out_dir: Path,
    name: str,
    find_triangles: Rasterizer,
) -> None:
    """Write NAME_out.png, and per person NAME_0_overlay.png, _side.png, .npz, .json, .obj, .glb."""
    colors = palette(len(people))
    in_photo = [
        vertices_in_photo(person.vertices, person.cam, CropWindow(*person.crop.tolist()))
        for person in people
    ]
    distances = [person.translation[2] for person in people]
    drawn = overlay(photo, in_photo, people[0].faces, colors, distances, find_triangles)
    write_image(out_dir / f"{name}_out.png", side_by_side([photo, drawn]))
    for person, vertices, color in zip(people, in_photo, colors, strict=True):
        stem = f"{name}_{person.person}"
        alone = drawn
        if len(people) > 1:
            alone = overlay(photo, [vertices], person.faces, [color], rasterizer=find_triangles)
        write_image(out_dir / f"{stem}_overlay.png", alone)
        side = side_view(person.vertices, person.faces, color, rasterizer=find_triangles)
        write_image(out_dir / f"{stem}_side.png", side)
        save_npz(out_dir / f"{stem}.npz", person)
        save_json(out_dir / f"{stem}.json", person)
        save_mesh(out_dir / f"{stem}.obj", person)
        save_mesh(out_dir / f"{stem}.glb", person)


def vertices_in_photo(vertices: np.ndarray, cam: np.ndarray, window: CropWindow) -> np.ndarray:
    """Return (V, 3): photo pixels by the crop camera, and depth in the same unit."""
    scale, *shift = cam
    places = window.to_photo(scale * (vertices[:, :2] + np.array(shift)))
    depth = vertices[:, 2:] * scale * window.width / 2
    return np.concatenate([places, depth], axis=1)


def _box(text: str) -> Box:
    try:
        x, y, width, height = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h, four numbers") from None
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise argparse.ArgumentTypeError(f"{text!r} has no positive width and height")
    return x, y, width, height


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _focal_length(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of pixels")
    return value


def _check_box(box: Box, shape: tuple[int, ...], path: Path) -> None:
    x, y, width, height = box
    inside = x < shape[1] and y < shape[0] and x + width > 0 and y + height > 0
    if not inside or max(width, height) > 4 * max(shape[:2]):
        raise ValueError(
            f"--bbox {x:g},{y:g},{width:g},{height:g} does not fit {display(path)}, which is "
            f"{shape[1]} x {shape[0]} pixels."
        )


def _complain(error: Exception) -> int:
    print(f"Error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
