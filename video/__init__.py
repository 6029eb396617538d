"""A clip's people: found, followed and smoothed; their results."""

if __name__ != "smpler.video":
    raise ImportError(f"Import this package as smpler.video, not as {__name__}.")
