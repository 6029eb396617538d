import numpy as np
import pytest
import torch

from scripts import check_dataset, make_toy_data
from scripts.make_toy_data import MIXED, SETS
from smpler.datasets import PROTOCOLS
from smpler.datasets.human_mesh import HumanMesh
from smpler.datasets.tsv import TsvDataset
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.joints import ANNOTATION_NAMES, KEYPOINT_NAMES
from tests.support.tsv_data import table

NUM = 2


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy")
    make_toy_data.main(["--out", str(out), "--num", str(NUM), "--seed", "5"])
    return out


def test_all_published_yamls_are_there(toy):
    for protocol in (PROTOCOLS["h36m"], PROTOCOLS["3dpw"]):  # open reads no file
        assert len(HumanMesh(toy / protocol.evaluate, training=False)) == NUM
        expected = NUM * (3 if protocol.train == MIXED else 1)
        assert len(HumanMesh(toy / protocol.train, training=True)) == expected


def test_annotations_differ_as_the_published_ones_do(toy):
    has = {}
    for path in (*(toy_set.path for toy_set in SETS), MIXED):
        items = list(HumanMesh(toy / path, training=False))
        names = ("has_keypoints_2d", "has_keypoints_3d", "has_smpl")
        has[path] = tuple(sum(int(item[name]) for item in items) for name in names)
    assert has["human3.6m/valid.protocol2.yaml"] == (NUM, NUM, 0), "no SMPL in Human3.6M's"
    assert has["3dpw/test_has_gender.yaml"] == (NUM, NUM, NUM)
    assert has[MIXED] == (3 * NUM, 2 * NUM, 2 * NUM)
    test_set = HumanMesh(toy / "3dpw/test_has_gender.yaml", training=False)
    assert {item["gender"] for item in test_set} <= {1, 2}


def test_labels_are_what_the_body_says(toy):
    """Posing the open body anew gives the labelled joints, in the camera's frame."""
    body = open_body()
    smpl, regressor = SMPL(body).double(), torch.from_numpy(body.annotation_regressor).double()
    samples = TsvDataset(toy / "3dpw/train.yaml")
    for index in range(len(samples)):
        label = samples.label(index)
        posed = smpl(*(torch.tensor([label[n]], dtype=torch.float64) for n in ("pose", "betas")))
        joints = (regressor @ posed.vertices[0]).numpy()
        joints -= joints[ANNOTATION_NAMES.index("Pelvis")]
        worst = np.abs(joints - np.array(label["3d_joints"])[:, :3]).max()
        assert worst < 1e-5, f"{worst:.1e} m"


def test_people_stand_upright_and_face_the_camera(toy):
    for item in HumanMesh(toy / "3dpw/train.yaml", training=False):
        x, y, z = dict(zip(KEYPOINT_NAMES, item["keypoints_3d"][:, :3].numpy(), strict=True)), 1, 2
        assert x["Head"][y] < x["Neck"][y] < x["R_Hip"][y] < x["R_Ankle"][y], "y points down"
        assert x["R_Hip"][0] < x["L_Hip"][0], "their right is on the image's left"
        assert np.isfinite(x["Head"][z])


def test_keypoints_are_the_projection_of_the_3d_ones(toy):
    """A weak-perspective camera explains 2D by 3D to a few pixels of the crop."""
    for item in HumanMesh(toy / "human3.6m/valid.protocol2.yaml", training=False):
        target = item["keypoints_2d"][:, :2].numpy() * 112
        source = item["keypoints_3d"][:, :2].numpy()
        design = np.concatenate([np.kron(source.reshape(-1, 1), [[1, 0, 0]])], axis=0)
        design[:, 1], design[:, 2] = np.tile([1, 0], 14), np.tile([0, 1], 14)
        solution, *_ = np.linalg.lstsq(design, target.reshape(-1), rcond=None)
        worst = np.abs(design @ solution - target.reshape(-1)).max()
        assert solution[0] > 0 and worst < 16, f"{worst:.1f} px with scale {solution[0]:.1f}"


def test_the_person_is_where_the_label_says(toy):
    """The crop differs from its surroundings on the skeleton: clothes, not clouds."""
    data = HumanMesh(toy / "3dpw/train.yaml", training=False)
    for item in data:
        assert (item["keypoints_2d"][:, :2].abs() < 0.95).all(), "the box holds the whole person"
        extent = np.ptp(item["keypoints_2d"][:, :2].numpy(), axis=0).max() * 112
        assert 224 / 1.2 * 0.7 < extent < 224 / 1.2 * 1.02, f"{extent:.0f} px of 187"


def test_the_same_seed_gives_the_same_files(toy, tmp_path):
    make_toy_data.write_all(tmp_path, 1, seed=5)
    for name in ("img", "label"):
        first, again = (table(out / "muco/train.yaml", name) for out in (toy, tmp_path))
        assert first.read_bytes().startswith(again.read_bytes())


def test_the_checker_finds_nothing_wrong(toy, capsys):
    assert check_dataset.main([str(toy / MIXED)]) == 0
    assert "look:" not in capsys.readouterr().out


def test_nothing_to_make_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        make_toy_data.main(["--out", str(tmp_path), "--num", "0"])
