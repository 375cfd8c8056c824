"""Trained networks as packed words and integer thresholds, run by XOR and popcount (docs/packed.md)."""

from downstream.packed.engine import Packed, pack
from downstream.packed.file import load, save

__all__ = ["Packed", "load", "pack", "save"]
