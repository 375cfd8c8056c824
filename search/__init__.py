"""The method: 1-bit operations, search spaces, cost counting and the search strategies."""


def __getattr__(name: str) -> str:
    """``__version__``: that of the installed package, looked up when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cp-nas-bench")
    except PackageNotFoundError:
        return "unknown"
