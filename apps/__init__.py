"""Programs to look at results: `smpler view`, people in space; `smpler web`, the demo as a page."""

if __name__ != "smpler.apps":
    raise ImportError(f"Import this package as smpler.apps, not as {__name__}.")
