"""The network, the body, detectors, and the way from a photo to a `PersonResult`."""

if __name__ != "smpler.models":
    raise ImportError(f"Import this package as smpler.models, not as {__name__}.")
