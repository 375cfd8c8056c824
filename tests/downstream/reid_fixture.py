"""Small re-identification data sets made of random textures, one texture an identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from downstream.reid.layout import GALLERY, QUERY, TRAIN
from downstream.reid.settings import ReidSettings
from tests.search.tiny import BLOCK

SIZE = (40, 32)

TINY: dict[str, Any] = {
    "target": None,
    "form": "paper",
    "block": BLOCK,
    "channels": 4,
    "cells": 3,
    "handmade_channels": 4,
    "pretrained": False,
    "last_stride": 2,
    "bnneck": True,
    "height": 32,
    "width": 32,
    "flip": True,
    "pad": 2,
    "erasing": 0.5,
    "loss": "triplet",
    "label_smoothing": 0.1,
    "margin": 0.3,
    "triplet_weight": 1.0,
    "identities": 2,
    "images": 2,
    "identity_sampler": True,
    "epochs": 2,
    "learning_rate": 0.01,
    "weight_decay": 0.0005,
    "warmup_epochs": 1,
    "warmup_factor": 0.1,
    "steps": [1],
    "gamma": 0.1,
    "evaluate_every": 0,
    "test_batch": 16,
    "distance": "cosine",
    "rerank": False,
    "pictures": 2,
    "workers": 0,
}


def settings(**changes: Any) -> ReidSettings:
    """The smallest settings that train."""
    return ReidSettings(**{**TINY, **changes})


def textures(pid: int, count: int) -> list[np.ndarray]:
    """Pictures of one identity: its own coarse texture under a little noise, uint8 (40, 32, 3)."""
    rng = np.random.default_rng(pid)
    coarse = rng.integers(0, 200, (5, 4, 3))
    base = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return [(base + rng.integers(0, 55, base.shape)).astype(np.uint8) for _ in range(count)]


def make(
    root: Path, *, train: int = 4, test: int = 3, images: int = 4, suffix: str = "png", first: int = 1
) -> Path:
    """A folder in Market-1501's layout: ``images`` pictures an identity, of cameras 1 and 2 in turn."""
    for split in (TRAIN, GALLERY, QUERY):
        (root / split).mkdir(parents=True)
    for pid in range(first, first + train + test):
        for number, pixels in enumerate(textures(pid, images)):
            split = TRAIN if pid < first + train else QUERY if number == 0 else GALLERY
            name = f"{pid:04d}_c{1 + number % 2}s1_{number:06d}_00.{suffix}"
            Image.fromarray(pixels).save(root / split / name)
    return root
