if __name__ != "tests":
    raise ImportError(f"Import this package as tests, not as {__name__}.")
