"""docs/weights.md: its loader in plain PyTorch gives the logits of the suite's own network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from downstream.classification.described import NORMALISATION, description
from downstream.models import binarised, build
from search.binary import set_stage
from search.training import seed_all
from search.weights import read_header, save_weights

PAGE = Path(__file__).parents[2] / "docs/weights.md"
CODE = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]  # type: ignore[index]


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Batch norms as after a training, none of their four vectors neutral."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for vector in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                vector.copy_(torch.rand_like(vector) + 0.5)
    return network.eval()


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("weights", [True, False])
def test_the_loader_gives_the_same_logits(tmp_path: Path, stem: Any, last_stride: int, weights: bool) -> None:
    seed_all(0)
    task = "cifar10" if stem == "cifar" else "imagenet"
    network = randomised(build("bi-real-18", channels=4, classes=3, stem=stem, last_stride=last_stride))
    set_stage(network, activations=True, weights=weights)
    names = ["ant", "bee", "cat"]
    header = {"binarised": binarised(True, weights), **description(network, task, names)}
    save_weights(tmp_path / "w.safetensors", network, header)
    module: dict[str, Any] = {}
    exec(CODE, module)
    forward, classes = module["load"](tmp_path / "w.safetensors")
    pixels = torch.rand(2, 3, 45, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATION[task])
    with torch.no_grad():
        torch.testing.assert_close(forward(pixels), network((pixels - mean) / std), atol=1e-4, rtol=1e-4)
    assert classes == names


def test_the_loader_is_short_and_needs_only_torch_and_safetensors() -> None:
    lines = CODE[CODE.index("def load") :].strip().splitlines()
    assert len(lines) <= 40
    assert set(re.findall(r"^(?:from|import) (\w+)", CODE, re.MULTILINE)) == {"json", "torch", "safetensors"}


def test_the_page_names_every_field(tmp_path: Path) -> None:
    network = build("bi-real-18", channels=4, classes=3)
    save_weights(tmp_path / "w.safetensors", network, description(network, "cifar10", ["a", "b", "c"]))
    fields = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE)))
    header = read_header(tmp_path / "w.safetensors")
    assert set(header) <= set(fields)
    assert json.loads(header["mean"]) == list(NORMALISATION["cifar10"][0])
