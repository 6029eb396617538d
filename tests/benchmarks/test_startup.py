import json

from benchmarks import startup

NEEDLESS = {
    "torchvision",
    "scipy",
    "trimesh",
    "numba",
    "matplotlib",
    "tensorboardX",
    "torch._dynamo",
    "sympy",
    "networkx",
    "yaml",
    "smpler.datasets",
    "safetensors.tensorflow",
    "smpler.apps",
    "viser",
    "gradio",
}


def test_the_demo_never_imports_what_it_does_not_need():
    _, modules = startup.first_result([], "cpu")
    assert "torch" in modules and "smpler.command" in modules
    assert not modules & NEEDLESS, modules & NEEDLESS


def test_the_benchmark_writes_medians_and_their_ratio(monkeypatch, tmp_path):
    seconds = iter([9.0, 4.0, 2.0, 5.0, 1.0, 4.0, 2.0])  # warm-up, then baseline and ours in turns
    monkeypatch.setattr(startup, "first_result", lambda *_: (next(seconds), set()))
    monkeypatch.setattr(startup, "run_timed", lambda *_: (0.5, set()))
    file = tmp_path / "numbers.json"
    startup.main(["--rounds", "3", "--json", str(file)])
    result = json.loads(file.read_text())
    assert (result["baseline_ms"], result["ours_ms"]) == (4000, 2000)
    assert result["throughput_ratio"] == 2 and result["import_torch_ms"] == 500
