"""Trained networks as packed words and integer thresholds, run by XOR and popcount."""

from downstream.packed.engine import Packed, pack

__all__ = ["Packed", "pack"]
