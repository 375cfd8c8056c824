"""The method: 1-bit operations, search spaces, cost counting and the search strategies."""
