import json

import pytest
import torch

from benchmarks import data_engine
from smpler.datasets.engine import stream as engine_stream
from smpler.datasets.engine.gpu_stream import SyntheticBatches, draw_scenes
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.models.body import open_body
from tests.support.standin_wardrobe import Poses, wardrobe


@pytest.fixture(scope="module")
def stream() -> SyntheticPeople:
    body = open_body()
    return SyntheticPeople(body, wardrobe(body), Poses(), seed=5)


def test_it_counts_crops_and_writes_what_it_prints(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine_stream, "load_wardrobe", lambda: wardrobe(open_body()))
    threads = torch.get_num_threads()
    try:
        data_engine.main(["--crops", "2", "--json", str(tmp_path / "numbers.json")])
    finally:
        torch.set_num_threads(threads)
    result = json.loads((tmp_path / "numbers.json").read_text())
    assert result["throughput_ratio"] == result["baseline_ms"] / result["ours_ms"] > 0
    assert result["crops"] == 2 and result["crops_per_second_per_core"] > 0
    assert result["scenes_per_second_drawn"] > 0 and result["host_waits_per_batch"] == 11
    parts = {name for name in result if name.startswith("ms_")}
    names = "transfer pack rasterise shadow_maps shading backdrop subject develop labels"
    assert parts == {f"ms_{name}" for name in names.split()}
    assert all(result[name] > 0 for name in parts)
    printed = capsys.readouterr().out
    assert "crops_per_second_per_core" in printed and "ms_shadow_maps" in printed


def test_processes_draw_the_scenes_that_are_counted(stream):
    result = data_engine.measure_parts(stream, torch.device("cpu"), 1, num_workers=1)
    assert result["scenes_per_second_drawn"] > 0 and result["batch_of_parts"] == 1


def test_the_slowest_operations_are_printed(stream, capsys):
    batches = SyntheticBatches(stream, 1, "cpu")
    result = data_engine.measure_operations(batches, [0], draw_scenes(stream, [0]))
    assert result["operations_per_batch"] > 500 and result["ms_operations"] > 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == data_engine.NUM_SLOWEST
    assert any("aten::index" in line for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_a_missing_gpu_is_one_sentence(capsys):
    with pytest.raises(SystemExit):
        data_engine.main(["--device", "cuda"])
    assert "no GPU answers to cuda; use --device cpu" in capsys.readouterr().err
