import json

import pytest
import torch

from benchmarks import stages
from smpler.datasets.engine import stream as engine_stream
from smpler.models.body import open_body
from smpler.training.checkpoint import save_atomically
from tests.support.small_main import build_tiny
from tests.support.standin_wardrobe import wardrobe


@pytest.fixture
def small(monkeypatch):
    clothes = wardrobe(open_body())
    monkeypatch.setattr(stages, "build_smpler", build_tiny)
    monkeypatch.setattr(engine_stream, "load_wardrobe", lambda: clothes)


def checkpoint(path, seed: int, backbone_of=None) -> dict:
    """Write a checkpoint of a small model, with the backbone of another one if one is given."""
    torch.manual_seed(seed)
    model = build_tiny(stages_config(), open_body())
    state = model.state_dict()
    if backbone_of:
        state |= {n: x for n, x in backbone_of.items() if n.startswith("backbone.")}
    body = {"name": "open", "sha256": open_body().sha256}
    content = {"model": state, "config": stages_config().to_dict(), "body": body}
    content |= {"global_iter": 10 * seed, "elapsed_s": 60.0 * seed}
    save_atomically(content, path)
    return state


def stages_config():
    from smpler.models.smpler import SMPLerConfig

    return SMPLerConfig("hrnet-w32", num_blocks=2)


def test_every_stage_of_every_checkpoint_is_measured(small, tmp_path, capsys):
    first = checkpoint(tmp_path / "a.pt", 1)
    checkpoint(tmp_path / "b.pt", 2, backbone_of=first)
    paths = [str(tmp_path / name) for name in ("a.pt", "b.pt")]
    code = stages.main([*paths, "--num=3", "--json", str(tmp_path / "out.json")])
    assert code == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["steps"], row["elapsed_s"]) for row in rows] == [(10, 60.0), (20, 120.0)]
    assert all(len(row["mpjpe"]) == 3 and min(row["mpjpe"]) > 0 for row in rows)
    assert rows[0]["mpjpe"] != rows[1]["mpjpe"]
    checkpoint(tmp_path / "c.pt", 3)
    assert stages.main([paths[0], str(tmp_path / "c.pt"), "--num=3"]) == 2
    assert "c.pt has another backbone than" in capsys.readouterr().err
