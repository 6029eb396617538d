if __name__ != "scripts":
    raise ImportError(f"Import this package as scripts, not as {__name__}.")
