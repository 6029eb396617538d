import numpy as np
import pytest

from scripts.build import pose_statistics
from smpler.datasets.engine.poses.captured import NUM_NUMBERS


def test_the_fit_finds_two_groups_their_spread_and_their_correlation():
    rng = np.random.default_rng(0)
    along = np.array([4.0, 4.0, 0, 0, 0])
    first = 20 + rng.standard_normal((600, 1)) * along + rng.standard_normal((600, 5))
    second = -20 + rng.standard_normal((200, 5))
    mixture = pose_statistics.fit(np.concatenate([first, second]), 2, 1, 10, 0)
    one, two = np.argsort(-mixture.weight)
    assert mixture.weight[one] == pytest.approx(0.75, abs=0.01)
    assert np.abs(mixture.mean[one] - 20).max() < 0.7 and np.abs(mixture.mean[two] + 20).max() < 0.7
    found = mixture.directions[one][:, 0]
    # shrunk towards no correlation, by SHRINKAGE poses
    assert np.abs(found * np.sign(found[0]) - along).max() < 0.4, found
    assert mixture.rest.min() >= pose_statistics.FLOOR, "no number is held fast"


def test_groups_of_a_few_poses_are_given_up():
    rng = np.random.default_rng(0)
    many, few = rng.standard_normal((400, 3)), 30 + rng.standard_normal((20, 3))
    mixture = pose_statistics.fit(np.concatenate([many, few]), 2, 1, 5, 0)
    assert len(mixture.weight) == 1, "20 rows would be 10 poses: nearly the poses themselves"


def test_the_script_writes_what_the_sampler_reads(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pose = 0.2 * rng.standard_normal((400, 24, 3))
    pose[:150, 0] += (-1.5, 0, 0)  # on the back
    np.savez(tmp_path / "poses.npz", pose=pose, clip=np.array(["a", "b"] * 200))
    out = tmp_path / "statistics.npz"
    flags = [f"--poses={tmp_path / 'poses.npz'}", f"--out={out}", "--groups=2", "--floor_groups=1"]
    assert pose_statistics.main([*flags, "--steps=2", "--directions=3"]) == 0
    assert "400 poses" in capsys.readouterr().out
    with np.load(out) as archive:
        assert archive["directions"].shape == (3, NUM_NUMBERS, 3)
        assert archive["floor"].tolist() == [False, False, True]
        assert archive["weight"].astype(float).sum() == pytest.approx(1, abs=0.01)


def test_a_file_without_poses_gives_one_sentence(tmp_path, capsys):
    np.savez(tmp_path / "none.npz", other=np.zeros(3))
    assert pose_statistics.main([f"--poses={tmp_path / 'none.npz'}"]) == 2
    assert "none.npz: `pose` is not (n, 24, 3)" in capsys.readouterr().err
    np.savez(tmp_path / "nameless.npz", pose=np.zeros((2, 24, 3)))
    assert pose_statistics.main([f"--poses={tmp_path / 'nameless.npz'}", "--half"]) == 2
    assert "`clip` is not one name for each pose" in capsys.readouterr().err
    (tmp_path / "cut.npz").write_bytes((tmp_path / "none.npz").read_bytes()[:100])
    assert pose_statistics.main([f"--poses={tmp_path / 'cut.npz'}"]) == 2
    assert "cut.npz cannot be read" in capsys.readouterr().err
