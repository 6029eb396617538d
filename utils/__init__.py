"""Joints, cameras, images, pictures and files; nothing here knows a network."""

if __name__ != "smpler.utils":
    raise ImportError(f"Import this package as smpler.utils, not as {__name__}.")
