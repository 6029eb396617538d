import os
import tempfile

import pytest

numba = pytest.importorskip("numba")

from numba.core.caching import (  # noqa: E402
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

from smpler.datasets.engine.render import numba_compile  # noqa: E402


def twice(number):
    return 2 * number


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Neither the checkout nor a home can be written; temporary files are in a folder."""
    for locator in (InTreeCacheLocator, UserWideCacheLocator):
        monkeypatch.setattr(locator, "from_function", classmethod(lambda *_: None))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    numba_compile.temporary_folder.cache_clear()
    yield tmp_path
    numba_compile.temporary_folder.cache_clear()


def test_numba_alone_refuses_there(nowhere):
    with pytest.raises(RuntimeError, match="cannot cache function"):
        numba.njit(cache=True)(twice)


def test_compiled_code_goes_to_a_private_temporary_folder(nowhere):
    place = numba.config.CACHE_DIR
    assert numba_compile.compiled(twice)(4) == 8
    (folder,) = nowhere.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.rglob("*.nbi"))) == 1
    assert numba.config.CACHE_DIR == place
    again = numba_compile.compiled(twice)
    assert again(4) == 8 and again.stats.cache_hits, "the next process compiles it anew"


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file", "no folder at all"])
def test_code_of_others_is_never_run_and_that_is_said_once(kind, nowhere, caplog, monkeypatch):
    folder = nowhere / f"smpler_compiled_{os.getuid()}"
    if kind == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == "a link":
        (nowhere / "theirs").mkdir(mode=0o700)
        folder.symlink_to(nowhere / "theirs")
    elif kind == "a file":
        folder.touch()
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(nowhere / "none"))
    functions = [numba_compile.compiled(twice) for _ in range(3)]
    assert [function(4) for function in functions] == [8, 8, 8]
    assert not list(nowhere.rglob("*.nbi"))
    assert caplog.text.count("compiled code cannot be kept") == 1


def test_a_place_that_the_user_names_is_taken(nowhere, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(nowhere / "mine"))
    assert UserProvidedCacheLocator.from_function(twice, __file__)
    assert numba_compile.compiled(twice)(4) == 8
    assert list((nowhere / "mine").rglob("*.nbi"))
