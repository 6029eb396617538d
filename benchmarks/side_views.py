"""Pictures that show at once whether bodies stand: over the photo, from the front, side and top.

`python -m benchmarks.side_views --out FOLDER PHOTO...` writes one sheet for each person: the crop
with the body over it, then the body alone from the front, from the picture's left (the side that
faces the camera is on the right), and from above (the camera is below). The photo's vertical is the
sheet's: a body that falls towards the camera leans to the right in the third picture.
"""

import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from smpler.models.predictor import Predictor
from smpler.photos import find_photos, output_names
from smpler.utils.drawing.overlay import draw_bodies, place_body
from smpler.utils.drawing.visualize import MESH_COLOR, side_by_side, side_view
from smpler.utils.export import PersonResult
from smpler.utils.flags import Parser, device_name, input_path, output_folder, program, weights_file
from smpler.utils.image import CropWindow, Photo, crop, read_photo, write_image
from smpler.utils.paths import display

SIDE = 448
"""Of each picture, pixels."""
FRONT = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
TOP = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]])
"""Turns after which `side_view` shows a body from the front and from above."""


@program
def main(argv: list[str] | None = None) -> int:
    """Estimate and draw."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("photos", type=input_path, nargs="+", help="photos, or folders of them")
    add("--out", type=output_folder, required=True, help="folder of the sheets")
    add("--checkpoint", type=weights_file, help="default: the released weights")
    add("--device", type=device_name, default="cpu")
    args = parser.parse_args(argv)
    predictor = Predictor.load(args.checkpoint, device=args.device, mirror=True, fit=True)
    photos = find_photos(args.photos)
    for path, name in zip(photos, output_names(photos), strict=True):
        photo = read_photo(path)
        for result in predictor(photo):
            target = args.out / f"{name}_{result.person}.png"
            write_image(target, sheet(photo, result))
            print(display(target))
    return 0


def sheet(photo: Photo, person: PersonResult) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a person: over the crop, from the front, from the side, from above."""
    placed = person.vertices + person.translation
    body = place_body(placed, person.faces, MESH_COLOR, person.focal_length, person.principal_point)
    window = CropWindow(*person.crop.tolist())
    over = crop(draw_bodies(photo.image, [body]), window, SIDE)
    return side_by_side(
        [np.rint(over * 255).astype(np.uint8), *(seen_from(person, turn) for turn in TURNS)]
    )


def seen_from(
    person: PersonResult, turn: Float[np.ndarray, "3 3"]
) -> UInt8[np.ndarray, "{SIDE} {SIDE} 3"]:
    """Draw a body alone, after a turn."""
    return side_view(person.vertices @ turn.T, person.faces, MESH_COLOR, SIDE)


TURNS: Sequence[Float[np.ndarray, "3 3"]] = (FRONT, np.eye(3), TOP)


if __name__ == "__main__":
    sys.exit(main())
