"""Import this module (``custom_imports``) and every type of ours is in MMDetection's registries."""

from __future__ import annotations

from downstream.detection import operators

operators.install()

from downstream.detection import backbone, checkpoints, convolution, datasets, heads, metrics, progress  # noqa: E402

__all__ = ["backbone", "checkpoints", "convolution", "datasets", "heads", "metrics", "progress"]
