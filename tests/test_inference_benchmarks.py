import json

import pytest
import torch

from benchmarks import decoupled_attention, inference
from models.attention import PreNormLayer
from tests.tiny_model import tiny_model

KEYS = {"baseline_ms", "ours_ms", "throughput_ratio"}
KEYS |= {"batch", "rounds", "device", "threads", "clock"}


def test_full_attention_of_the_table_is_the_models_own():
    torch.manual_seed(0)
    layer = PreNormLayer(128, 4, 256, dropout=0.0).eval()
    tokens = torch.randn(2, 50, 128)
    with torch.no_grad():
        error = (decoupled_attention.full(layer, tokens) - layer(tokens)).abs().max().item()
    assert error < 1e-5, error


def test_decoupled_attention_gains_on_larger_maps(tmp_path, capsys):
    path = tmp_path / "numbers.json"
    decoupled_attention.main(["--sides", "7", "56", "--rounds", "3", "--json", str(path)])
    numbers = json.loads(path.read_text())
    assert numbers.keys() >= KEYS
    small, large = numbers["sides"]
    assert large["throughput_ratio"] > 4 * small["throughput_ratio"], numbers["sides"]
    assert numbers["baseline_ms"] / numbers["ours_ms"] == pytest.approx(large["throughput_ratio"])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_inference_is_measured_in_every_way(tmp_path, monkeypatch, capsys):
    model = tiny_model(monkeypatch)
    monkeypatch.setattr(inference, "calibrated_model", lambda preset, device: model)
    monkeypatch.setattr(inference, "find_spec", lambda name: None)  # exporting takes a while
    # the baseline knows HRNet alone
    monkeypatch.setattr("benchmarks.published_model.hrnet", lambda backbone, x: backbone(x))
    path = tmp_path / "numbers.json"
    inference.main(["--batch", "2", "--rounds", "1", "--bf16", "--json", str(path)])
    numbers = json.loads(path.read_text())
    assert numbers.keys() >= KEYS | {"head_throughput_ratio", "preset"}
    assert numbers["ms"].keys() == {"published", "plain", "fused", "fused, bf16"}
    assert numbers["head_ms"].keys() == {"published", "plain", "fused"}
    assert numbers["ours_ms"] == numbers["ms"][numbers["ours"]]
    assert numbers["ours_ms"] == min(v for k, v in numbers["ms"].items() if k != "published")
    assert "Transformer and body alone" in capsys.readouterr().out


def test_calibrated_weights_keep_the_maps_at_the_scale_of_one():
    model = inference.calibrated_model("smpler", torch.device("cpu"))
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 224, 224))
    scales = [x.std().item() for x in maps]
    assert all(0.1 < scale < 100 for scale in scales), scales


def test_cpu_time_is_refused_on_a_gpu(capsys):
    with pytest.raises(SystemExit, match="--cpu_time does not count a GPU's work"):
        decoupled_attention.main(["--device", "cuda", "--cpu_time"])
