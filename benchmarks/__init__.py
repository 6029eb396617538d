if __name__ != "benchmarks":
    raise ImportError(f"Import this package as benchmarks, not as {__name__}.")
