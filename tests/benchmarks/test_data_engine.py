import json

import pytest
import torch

from benchmarks import data_engine
from smpler.datasets.engine import stream as engine_stream
from smpler.models.body import open_body
from tests.support.standin_wardrobe import wardrobe


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
    assert "crops_per_second_per_core" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_a_missing_gpu_is_one_sentence(capsys):
    with pytest.raises(SystemExit):
        data_engine.main(["--device", "cuda"])
    assert "no GPU answers to cuda; use --device cpu" in capsys.readouterr().err
