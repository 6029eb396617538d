"""SMPLer: posed 3D bodies from photos.

    from smpler import Predictor
    people = Predictor.load()("photo.jpg")  # list[PersonResult]

In a checkout this package is the checkout: `smpler.models` is the folder `models/` beside this one.
An installed package holds the same folders inside itself.
"""

from importlib import import_module
from pathlib import Path

__version__ = "0.2.0"

if __name__ != "smpler":
    raise ImportError(f"This package is `smpler`, not {__name__!r}: import smpler.")

_FOLDER = Path(__file__).resolve().parent
if not (_FOLDER / "models").is_dir():
    __path__.append(str(_FOLDER.parent))

_HOMES = {
    "Predictor": "smpler.models.predictor",
    "PersonResult": "smpler.utils.export",
    "open_body": "smpler.models.body",
}
"""Public name -> the module that defines it, imported when the name is first used."""

__all__ = ["PersonResult", "Predictor", "__version__", "open_body"]


def __getattr__(name: str):
    """Import a public name when it is first used, so that `import smpler` alone takes no time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'smpler' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
