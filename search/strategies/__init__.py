"""The search methods, one file each, behind the protocol of :mod:`search.strategies.base`."""
