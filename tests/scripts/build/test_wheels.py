import hashlib
import zipfile

import pytest

from scripts.build import npm, wheels


def test_a_file_that_is_no_wheel_is_one_sentence(tmp_path):
    page = tmp_path / "page.whl"
    page.write_text("<html>404</html>")
    with pytest.raises(ValueError, match="page.whl is no wheel; give that of package==1"):
        wheels.read_from_wheel("package==1", "a.bin", "", page)
    with pytest.raises(FileNotFoundError, match="none.whl is missing"):
        wheels.read_from_wheel("package==1", "a.bin", "", tmp_path / "none.whl")


def test_a_cut_wheel_is_one_sentence(tmp_path):
    whole, cut = tmp_path / "whole.whl", tmp_path / "cut.whl"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", bytes(range(256)) * 9)
    content = whole.read_bytes()
    digest = hashlib.sha256(bytes(range(256)) * 9).hexdigest()
    assert wheels.read_from_wheel("package==1", "a.bin", digest, whole)[:2] == b"\0\1"
    for damaged in (content[:-30], content[:40] + b"\xff" * 30 + content[70:]):
        cut.write_bytes(damaged)
        with pytest.raises(ValueError, match="cut.whl is no wheel"):
            wheels.read_from_wheel("package==1", "a.bin", digest, cut)
    with pytest.raises(ValueError, match="whole.whl holds no b.bin"):
        wheels.read_from_wheel("package==1", "b.bin", digest, whole)


def test_a_file_that_is_no_archive_of_npm_is_one_sentence(tmp_path):
    page = tmp_path / "page.tgz"
    page.write_text("<html>404</html>")
    with pytest.raises(ValueError, match="page.tgz is no archive of npm; get it"):
        npm.read_members(page, ["a"], "get it")
