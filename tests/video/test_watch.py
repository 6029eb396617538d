import numpy as np
import pytest

from smpler.video import watch

LENGTHS = {"n": 5, "k": 33}
IDENTITY = "{}"


def chunk(number: int = 0) -> dict[str, np.ndarray]:
    """Return what a file of looking holds."""
    shapes = {
        name: tuple(LENGTHS.get(x, x) if isinstance(x, str) else x for x in shape)
        for name, shape in watch.ROWS.items()
    }
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
    frames = watch.CHUNK * number + np.arange(watch.CHUNK)
    arrays |= {"frames": frames, "times": frames / 30, "met": np.arange(2)}
    arrays |= {f"state_{name}": np.zeros((2, 3)) for name in watch.STATE}
    arrays["state_clock"] = np.array([2, watch.CHUNK * (number + 1) - 1, 7])
    return arrays | {"identity": np.array(IDENTITY)}


@pytest.fixture
def kept(tmp_path):
    for number in range(2):
        np.savez(tmp_path / f"seen_{number:05d}.npz", **chunk(number))
    return tmp_path


def known(folder) -> int:
    return len(watch._known(folder, IDENTITY))


def test_whole_files_of_looking_are_known(kept):
    assert known(kept) == 2


DAMAGES = {
    "no track": lambda x: x | {"box": x["box"][:, :3]},
    "fewer rows": lambda x: x | {"rotmat": x["rotmat"][:4]},
    "missing": lambda x: {name: x[name] for name in x if name != "cam"},
    "no clock": lambda x: {name: x[name] for name in x if name != "state_clock"},
    "another number": lambda x: x | {"state_clock": x["state_clock"] + 1},
    "other people": lambda x: x | {"state_hip": np.zeros((3, 2))},
    "short": lambda x: x | {"frames": x["frames"][1:]},
    "of another run": lambda x: x | {"identity": np.array("{'a': 1}")},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_spoiled_file_of_looking_is_looked_at_anew(name, kept):
    np.savez(kept / "seen_00001.npz", **DAMAGES[name](chunk(1)))
    assert known(kept) == 1


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "pickle"])
def test_a_damaged_file_of_looking_is_looked_at_anew(damage, kept):
    path = kept / "seen_00000.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "pickle":
        np.savez(path, **chunk(), evil=np.array([{}], object))
    else:
        path.write_bytes({"cut": content[:-99], "bit": content, "empty": b""}[damage])
    assert known(kept) == 0
