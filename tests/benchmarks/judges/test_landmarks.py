import os

import pytest

from benchmarks.judges import landmarks


@pytest.mark.parametrize("home", ["", "file"], ids=["no home", "a home that cannot be written"])
def test_without_a_home_nothing_is_kept(home, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    place = str(tmp_path / home) if home else "~"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", place))
    monkeypatch.chdir(tmp_path)
    assert landmarks.user_cache() is None
    assert not (tmp_path / "~").exists()


def test_with_a_home_its_cache_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", str(tmp_path)))
    assert landmarks.user_cache() == tmp_path / ".cache" / "smpler"
