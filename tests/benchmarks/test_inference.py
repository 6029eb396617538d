import json

import pytest
import torch

from benchmarks import decoupled_attention, half_precision, harness, inference
from smpler.models.attention import PreNormLayer
from smpler.models.inference.optimize import optimize_for_inference
from tests.support.tiny_model import tiny_model

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
    monkeypatch.setattr("benchmarks.published.model.hrnet", lambda backbone, x: backbone(x))
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


def test_cpu_time_is_refused_on_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        decoupled_attention.main(["--device", "cuda", "--cpu_time"])
    assert "--cpu_time does not count a GPU's work" in capsys.readouterr().err


def test_what_16_bits_move_is_measured_in_millimetres(monkeypatch):
    model = tiny_model(monkeypatch)
    images = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(images)[-1].vertices
    found = optimize_for_inference(model, dtype=torch.bfloat16)(images)[-1].vertices
    distance = 1000 * (plain - found).square().sum(dim=2).sqrt().mean(dim=1)
    mean, worst = half_precision.measure(model, list(images.split(2)), torch.bfloat16)
    assert mean == pytest.approx(distance.mean().item(), rel=0.3), (mean, distance)
    assert worst >= mean > 1, (mean, worst)
    finer, _ = half_precision.measure(model, list(images.split(2)), torch.float16)
    exact, _ = half_precision.measure(model, list(images.split(2)), torch.float32)
    assert exact < 0.01 * finer < 0.005 * mean, (exact, finer, mean)


def test_16_bits_are_not_measured_without_trained_weights(monkeypatch, capsys):
    monkeypatch.setattr(harness, "released_weights", lambda: None)
    assert half_precision.main([]) == 2
    assert "give --checkpoint" in capsys.readouterr().err
