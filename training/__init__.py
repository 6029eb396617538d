"""Training and evaluation, on one process or many."""

if __name__ != "smpler.training":
    raise ImportError(f"Import this package as smpler.training, not as {__name__}.")
