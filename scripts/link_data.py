"""Link data sets from a store into datasets/: python -m scripts.link_data STORE.

Each known folder of the store is linked under its published name; missing ones are listed. When
repeated, it renews links and leaves your own folders alone.
"""

import sys
from pathlib import Path

from smpler.utils.flags import Parser, input_folder, program
from smpler.utils.paths import datasets_root, display, prepare_folder

KNOWN = {
    "Tax-H36m-coco40k-Muco-UP-Mpii": "the mixed training set's yaml",
    "human3.6m": "Human3.6M, training and protocol 2",
    "coco_smpl": "COCO with fitted SMPL",
    "muco": "MuCo-3DHP",
    "up3d": "UP-3D",
    "mpii": "MPII",
    "3dpw": "3DPW, training and test",
}
"""Published folder -> what it holds."""


@program
def main(argv: list[str] | None = None) -> int:
    """Link the folders; return 1 when one is missing, 2 when the store cannot be used."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=input_folder, help="folder that holds the data sets' folders")
    arguments = parser.parse_args(argv)
    store, root = arguments.store.resolve(), datasets_root().resolve()
    if store == root or store.is_relative_to(root) or root.is_relative_to(store):
        raise ValueError(
            f"{display(store)} and {display(root)} lie in one another; give the folder outside the "
            "repository where the data is."
        )
    prepare_folder(root)
    missing = [name for name in KNOWN if not link(store / name, root / name)]
    for name in missing:
        print(f"missing: {name} ({KNOWN[name]})")
    if missing:
        print("datasets/README.md says where each comes from and how to convert it.")
    return 1 if missing else 0


def link(folder: Path, place: Path) -> bool:
    """Link one folder and say so; return whether the data set is in place now."""
    if place.is_dir() and not place.is_symlink():
        print(f"kept: {display(place)} is a folder, no link")
        return True
    if not folder.is_dir():
        return place.is_dir()
    if place.is_symlink():
        if place.resolve() == folder.resolve():
            print(f"already linked: {display(place)}")
            return True
        place.unlink()
    place.symlink_to(folder, target_is_directory=True)
    print(f"linked: {display(place)} -> {folder}")
    return True


if __name__ == "__main__":
    sys.exit(main())
