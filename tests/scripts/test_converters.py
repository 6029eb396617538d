import json
import os
import pickle

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from scripts import convert_3dpw, convert_coco, convert_folder, convert_spin_npz
from smpler.datasets.human_mesh import HumanMesh
from smpler.datasets.tsv import TsvDataset
from smpler.models.body import load_body
from smpler.models.smpl import SMPL
from smpler.utils.joints import ANNOTATION_NAMES, H36M_NAMES
from tests.conftest import tiny_arrays
from tests.support.tsv_data import jpeg, smooth_image

FOCAL = 500.0
INTRINSICS = np.array([[FOCAL, 0, 160], [0, FOCAL, 120], [0, 0, 1]])


def write_photos(folder, names, height=240, width=320) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(smooth_image(height, width, number)))


@pytest.fixture
def dpw(tmp_path):
    """A 3DPW of one sequence: two people, four frames, a moving camera."""
    rng = np.random.default_rng(0)
    extrinsics = np.tile(np.eye(4), (4, 1, 1))
    extrinsics[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 1, (4, 3))).as_matrix()
    extrinsics[:, :3, 3] = rng.normal(0, 0.2, (4, 3)) + [0, 0, 5]
    poses2d = np.concatenate([rng.uniform(60, 180, (2, 4, 2, 18)), np.ones((2, 4, 1, 18))], 2)
    poses2d[1, 2] = 0  # nothing was detected
    sequence = {
        "sequence": "walk_00",
        "poses": list(rng.normal(0, 0.3, (2, 4, 72))),
        "trans": list(rng.normal(0, 0.2, (2, 4, 3))),
        "betas": list(rng.normal(0, 1, (2, 10))),
        "genders": ["m", "f"],
        "poses2d": list(poses2d),
        "cam_poses": extrinsics,
        "campose_valid": [np.array([1, 1, 0, 1]), np.array([1, 1, 1, 1])],
        "cam_intrinsics": INTRINSICS,
        "v_template_clothed": [np.zeros((20, 3))] * 2,
    }
    (tmp_path / "sequenceFiles/test").mkdir(parents=True)
    path = tmp_path / "sequenceFiles/test/walk_00.pkl"
    path.write_bytes(pickle.dumps(sequence, protocol=2))
    write_photos(tmp_path / "imageFiles/walk_00", [f"image_{i:05d}.jpg" for i in range(4)])
    np.savez(tmp_path / "tiny.npz", **tiny_arrays())
    regressor = rng.random((17, 20))
    np.save(tmp_path / "regressor.npy", regressor / regressor.sum(1, keepdims=True))
    return tmp_path, sequence


def run_3dpw(root, *more) -> int:
    out = root / "out/test.yaml"
    arguments = ["--root", str(root), "--split", "test", "--out", str(out), *map(str, more)]
    return convert_3dpw.main(arguments)


def test_3dpw_without_a_body_gives_smpl_and_detections(dpw, capsys):
    root, sequence = dpw
    assert run_3dpw(root) == 0
    printed = capsys.readouterr().out
    assert "6 samples" in printed and "2D 6, 3D 0, SMPL 6" in printed, printed
    assert "1 people whose camera was not aligned" in printed
    assert "1 people without 2D joints" in printed and "has_3d_joints is 0" in printed
    data = HumanMesh(root / "out/test.yaml", training=False)
    assert [item["gender"] for item in data] == [1, 1, 1, 2, 2, 2]
    assert data[0]["key"] == "imageFiles/walk_00/image_00000.jpg"
    label = data.samples.label(1)
    wrist = label["2d_joints"][ANNOTATION_NAMES.index("R_Wrist")]
    assert np.allclose(wrist, sequence["poses2d"][0][1][:, 4])
    assert label["2d_joints"][ANNOTATION_NAMES.index("Neck")] == [0, 0, 0], "OpenPose's is another"
    found = sequence["poses2d"][0][1][:2, [n != "Neck" for n in convert_3dpw.OPENPOSE_NAMES]]
    sides = np.ptp(found, axis=1)
    assert np.isclose(label["scale"], 1.2 * max(sides) / 200), "1.2 times the longer side"
    assert np.allclose(label["center"], found.min(1) + sides / 2)


def test_3dpw_labels_are_in_the_cameras_frame(dpw):
    """The labelled pose, posed without any camera, gives the labelled 3D joints."""
    root, sequence = dpw
    more = ("--body", root / "tiny.npz", "--regressor", root / "regressor.npy")
    assert run_3dpw(root, *more) == 0
    samples = TsvDataset(root / "out/test.yaml")
    assert len(samples) == 7, "projected joints need no detection"
    body = load_body(root / "tiny.npz").with_h36m_regressor(np.load(root / "regressor.npy"))
    smpl = SMPL(body).double()
    for index in range(len(samples)):
        label = samples.label(index)
        posed = smpl(*(torch.tensor([label[n]], dtype=torch.float64) for n in ("pose", "betas")))
        h36m = (smpl.h36m_regressor @ posed.vertices[0]).numpy()
        joints = np.array(label["3d_joints"])
        for name in set(H36M_NAMES) & set(ANNOTATION_NAMES):
            ours = h36m[H36M_NAMES.index(name)] - h36m[H36M_NAMES.index("Pelvis")]
            labelled = (
                joints[ANNOTATION_NAMES.index(name)] - joints[ANNOTATION_NAMES.index("Pelvis")]
            )
            error = np.abs(ours - labelled[:3]).max()
            assert error < 1e-6, f"{name} of sample {index} is {error:.1e} m off"
        seen = joints[joints[:, 3] > 0, :3] @ INTRINSICS.T
        pixels = np.array(label["2d_joints"])[joints[:, 3] > 0, :2]
        assert np.allclose(pixels, seen[:, :2] / seen[:, 2:]), "2D is the projection of 3D"


def test_3dpw_mistakes_are_one_line(dpw, capsys):
    root, _ = dpw
    assert run_3dpw(root, "--body", root / "tiny.npz") == 2
    assert "--regressor" in capsys.readouterr().err
    assert convert_3dpw.main(["--root", str(root), "--split", "train", "--out", "x.yaml"]) == 2
    assert "sequenceFiles/train" in capsys.readouterr().err


def test_a_3dpw_pickle_that_runs_code_is_refused(dpw, capsys):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/smpler_was_here",)

    root, _ = dpw
    (root / "sequenceFiles/test/walk_00.pkl").write_bytes(pickle.dumps({"poses": Evil()}))
    assert run_3dpw(root) == 2
    assert "system" in capsys.readouterr().err
    assert not os.path.exists("/tmp/smpler_was_here")
    assert not (root / "out/test.yaml").exists()


def spin_arrays(num: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    part = np.concatenate([rng.uniform(50, 200, (num, 24, 2)), np.ones((num, 24, 1))], axis=2)
    S = np.concatenate([rng.normal(0, 0.3, (num, 24, 3)), np.ones((num, 24, 1))], axis=2)
    S[2, :, 3] = 0
    return {
        "imgname": np.array([f"images/{i}.jpg" for i in range(num)]),
        "center": rng.uniform(100, 150, (num, 2)),
        "scale": rng.uniform(0.8, 1.2, num),
        "part": part,
        "S": S,
        "pose": rng.normal(0, 0.3, (num, 72)),
        "shape": rng.normal(0, 1, (num, 10)),
        "has_smpl": np.array([1, 0, 1]),
        "gender": np.array(["m", "f", "x"]),
    }


def run_spin(folder, arrays) -> int:
    np.savez(folder / "spin.npz", **arrays)
    paths = ["--npz", folder / "spin.npz", "--images", folder, "--out", folder / "out/train.yaml"]
    return convert_spin_npz.main([str(item) for item in paths])


def test_a_spin_npz_comes_back_as_it_was(tmp_path, capsys):
    arrays = spin_arrays()
    write_photos(tmp_path, arrays["imgname"])
    assert run_spin(tmp_path, arrays) == 0
    assert "2D 3, 3D 2, SMPL 2" in capsys.readouterr().out
    samples = TsvDataset(tmp_path / "out/train.yaml")
    for index in range(3):
        label = samples.label(index)
        assert np.allclose(label["2d_joints"], arrays["part"][index])
        assert np.allclose(label["center"], arrays["center"][index])
        assert label["scale"] == arrays["scale"][index]
        assert label["has_3d_joints"] == (index < 2) and label["has_smpl"] == (index != 1)
        assert label.get("gender") == ("m", "f", None)[index]
    assert np.allclose(samples.label(0)["3d_joints"], arrays["S"][0])
    assert np.allclose(samples.label(2)["pose"], arrays["pose"][2])


def test_spins_24_joints_stand_in_our_order():
    """Their names, as SPIN's constants list them after OpenPose's 25, in our spelling."""
    spin = (
        "Right Ankle, Right Knee, Right Hip, Left Hip, Left Knee, Left Ankle, Right Wrist, "
        "Right Elbow, Right Shoulder, Left Shoulder, Left Elbow, Left Wrist, Neck, Top of Head, "
        "Pelvis, Thorax, Spine, Jaw, Head, Nose, Left Eye, Right Eye, Left Ear, Right Ear"
    ).split(", ")
    ours = [name.replace("Left ", "L_").replace("Right ", "R_").replace(" ", "_") for name in spin]
    assert tuple(ours) == tuple(name.replace("Of", "of") for name in ANNOTATION_NAMES)


def test_a_spin_npz_without_3d_says_so(tmp_path, capsys):
    arrays = spin_arrays()
    write_photos(tmp_path, arrays["imgname"][:2])
    for name in ("S", "pose", "shape", "has_smpl", "gender"):
        del arrays[name]
    assert run_spin(tmp_path, arrays) == 0
    printed = capsys.readouterr().out
    assert "2D 2, 3D 0, SMPL 0" in printed and "no 'S' in this source" in printed
    assert "dropped: 1 photos that are missing (images/2.jpg)" in printed


def test_a_wrong_npz_is_one_line(tmp_path, capsys):
    arrays = spin_arrays()
    assert run_spin(tmp_path, {"imgname": arrays["imgname"]}) == 2
    assert "has no 'center'" in capsys.readouterr().err
    assert run_spin(tmp_path, arrays | {"pose": np.zeros((3, 69))}) == 2
    assert "'pose' has shape (3, 69), not (3, 72)" in capsys.readouterr().err
    (tmp_path / "bad.npz").write_bytes(b"PK no zip")
    paths = ["--npz", tmp_path / "bad.npz", "--images", tmp_path, "--out", tmp_path / "x.yaml"]
    assert convert_spin_npz.main([str(item) for item in paths]) == 2
    assert "bad.npz is no npz" in capsys.readouterr().err


COCO_NAMES = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
]  # fmt: skip


def run_coco(folder, content) -> int:
    (folder / "coco.json").write_text(json.dumps(content))
    paths = ["--json", folder / "coco.json", "--images", folder, "--out", folder / "c.yaml"]
    return convert_coco.main([str(item) for item in paths])


def test_coco_keypoints_are_placed_by_name(tmp_path, capsys):
    rng = np.random.default_rng(2)
    keypoints = np.column_stack([rng.uniform(50, 200, (17, 2)), np.tile([2, 1, 0], 6)[:17]])
    person = {"image_id": 7, "keypoints": keypoints.ravel().tolist(), "bbox": [40, 30, 100, 160]}
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "gone.jpg"}],
        "categories": [{"name": "dog"}, {"name": "person", "keypoints": COCO_NAMES}],
        "annotations": [
            person, person | {"iscrowd": 1}, person | {"image_id": 8},
            person | {"keypoints": [0] * 51},
        ],
    }  # fmt: skip
    write_photos(tmp_path, ["a.jpg"])
    assert run_coco(tmp_path, content) == 0
    printed = capsys.readouterr().out
    for part in ("1 samples", "1 crowds", "1 photos that are missing (gone.jpg)", "fewer than 6"):
        assert part in printed, printed
    label = TsvDataset(tmp_path / "c.yaml").label(0)
    joints = np.array(label["2d_joints"])
    for name, expected in zip(COCO_NAMES, keypoints, strict=True):
        side, _, part = name.rpartition("_")
        ours = joints[ANNOTATION_NAMES.index(f"{side[:1].upper()}_{part.title()}".lstrip("_"))]
        assert np.allclose(ours, [*expected[:2], expected[2] > 0]) or expected[2] == 0, name
    assert label["center"] == [90, 110] and np.isclose(label["scale"], 1.2 * 160 / 200)
    assert (label["has_2d_joints"], label["has_3d_joints"], label["has_smpl"]) == (1, 0, 0)


def run_folder(folder, entries) -> int:
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (folder / "people.json").write_text(text)
    paths = ["--images", folder, "--json", folder / "people.json", "--out", folder / "own.yaml"]
    return convert_folder.main([str(item) for item in paths])


def test_own_photos_with_everything_or_a_box_alone(tmp_path, capsys):
    write_photos(tmp_path, ["a.jpg"])
    cv2.imwrite(str(tmp_path / "b.png"), smooth_image(100, 80))
    entries = [
        {"image": "a.jpg", "keypoints_2d": {"R_Ankle": [50, 200], "Head": [70, 40, 0.5]},
         "keypoints_3d": {"R_Ankle": [0, 0.8, 3], "L_Hip": [0.1, 0, 3], "R_Hip": [-0.1, 0, 3]},
         "pose": [0.1] * 72, "betas": [0] * 10, "gender": "f"},
        {"image": "b.png", "box": [10, 20, 30, 60]},
        {"image": "a.jpg"},
    ]  # fmt: skip
    assert run_folder(tmp_path, entries) == 0
    printed = capsys.readouterr().out
    assert "2 samples" in printed and "2D 1, 3D 1, SMPL 1" in printed
    assert "1 people with neither box nor 2D keypoints (a.jpg)" in printed
    data = HumanMesh(tmp_path / "own.yaml", training=False)
    first, second = data[0], data[1]
    assert first["keypoints_3d"][0].tolist() == pytest.approx([0, 0.8, 0, 1]), "from the hips"
    assert first["keypoints_2d"][13, 2] == 0.5 and first["gender"] == 2
    assert second["center"].tolist() == [25, 50] and not second["has_keypoints_2d"]
    assert data.samples.image_bytes(1)[1][:2] == b"\xff\xd8", "a PNG becomes a JPEG"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "entry 0: 'image' is missing"),
        ({"image": "a.jpg", "keypoints_2d": {"Elbow": [1, 2]}}, "'Elbow' is no annotated joint"),
        ({"image": "a.jpg", "keypoints_3d": {"Head": [1, 2]}}, "Head has 2 numbers, not 3 or 4"),
        ({"image": "a.jpg", "box": [1, 2, 3]}, "box is"),
    ],
)
def test_mistakes_in_own_json_are_named_by_entry(entry, message, tmp_path, capsys):
    assert run_folder(tmp_path, [entry]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "own.yaml").exists()


def test_an_unusable_label_is_dropped_and_counted(tmp_path, capsys):
    write_photos(tmp_path, ["a.jpg"])
    good = {"image": "a.jpg", "box": [10, 20, 30, 60]}
    bad = good | {"pose": [0] * 71, "betas": [0] * 10}
    assert run_folder(tmp_path, [bad, good]) == 0
    assert "pose has 71 numbers instead of 72" in capsys.readouterr().out
    assert run_folder(tmp_path, [bad]) == 1
    assert "nothing to write" in capsys.readouterr().out
