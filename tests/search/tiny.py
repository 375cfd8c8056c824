"""Tiny settings and class-coloured images, for tests that run whole searches in seconds."""

from __future__ import annotations

import torch

from search.data import Images
from search.methods import SearchSettings
from search.training import ComputeSettings

COMPUTE = ComputeSettings(device="cpu", precision="32-true", threads=1)


def images(count: int = 160, classes: int = 4, size: int = 16, seed: int = 0) -> Images:
    """Noise around one colour a class: learnable in a few epochs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    colours = torch.randint(40, 216, (classes, 3), generator=generator)
    noise = torch.randint(-40, 40, (count, 3, size, size), generator=generator)
    return Images((colours[labels][:, :, None, None] + noise).to(torch.uint8), labels, classes)


def settings(**method: dict) -> SearchSettings:
    """Four channels, three cells, 32 + 32 images; ``method`` replaces or adds entries of ``search.method``."""
    return SearchSettings.model_validate(
        {
            "methods": ["cp_nas"],
            "seeds": [0],
            "checkpoint_seconds": 0.0,
            "space": {
                "name": "paper",
                "form": "paper",
                "block": BLOCK,
                "supernet": {"affine": "child", "running_statistics": False},
                "binary": True,
                "estimator": "bireal",
                "channels": 4,
                "cells": 3,
                "stem": "cifar",
                "train_images": 32,
                "validation_images": 32,
                "split_seed": 0,
                "batch_size": 16,
                "augmentation": {"crop_padding": 1, "flip": True, "cutout": 0},
                "optimiser": {
                    "name": "adam",
                    "learning_rate": 0.01,
                    "final_learning_rate": 0.001,
                    "momentum": 0.9,
                    "weight_decay": 0.0,
                    "clip": 5.0,
                },
                "edges": "top2",
            },
            "method": METHODS | method,
        }
    )


BLOCK: dict = {
    "parent_block": "original",
    "depthwise": None,
    "pool_norm": "own",
    "node_norm": False,
    "estimator_window": 1.0,
    "scale": None,
    "weight_gradient": "unscaled",
    "pad_value": 0,
    "learned_gain": 0.02,
}
"""The keys of ``block`` with the values of the profiles."""
METHODS: dict = {
    "cp_nas": {
        "beta_p": 0.5,
        "rounds": 1,
        "parent": True,
        "share_latent_weights": False,
        "partial": 1,
        "tie_weight": 0.0,
    },
    "bnas": {
        "warm_up": 1,
        "alpha_epochs": 1,
        "rounds": 1,
        "partial": 2,
        "alpha_learning_rate": 0.03,
        "alpha_weight_decay": 0.001,
    },
    "random": {"architectures": 3, "epochs": 2},
    "regularised_evolution": {"architectures": 4, "epochs": 1, "population": 2, "sample": 1},
    "local_search": {"architectures": 4, "epochs": 1},
    "darts": {"epochs": 3, "order": 1, "alpha_learning_rate": 0.03, "alpha_weight_decay": 0.001},
    "pc_darts": {
        "epochs": 3,
        "warm_up": 1,
        "partial": 2,
        "alpha_learning_rate": 0.03,
        "alpha_weight_decay": 0.001,
    },
    "dcp_nas": {
        "rounds": 2,
        "parent_epochs": 1,
        "child_epochs": 1,
        "alpha_learning_rate": 1.0,
        "alpha_weight_decay": 0.0,
    },
}
