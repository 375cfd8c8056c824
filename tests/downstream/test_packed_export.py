"""ONNX files of simulated networks give the networks' logits in another runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from downstream.models import build
from downstream.packed.export import export_onnx, exportable
from tests.downstream.packed_reference import randomise

NETWORKS = {
    "found": {"network": "DDPNAS_MCN_2", "channels": 2, "cells": 3},
    "bi-real-18": {"network": "bi-real-18", "channels": 8, "stem": "cifar"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_networks_logits(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    torch.manual_seed(0)
    network = randomise(build(**NETWORKS[name]), 0)
    export_onnx(network, tmp_path / "a.onnx", (32, 32))
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
    with torch.no_grad():
        expected = exportable(network)(x)
        assert torch.allclose(expected, network(x), atol=1e-5)
    assert torch.allclose(found, expected, atol=1e-5)
    text = (tmp_path / "a.onnx").read_bytes()
    assert b"GreaterOrEqual" in text and b"Where" in text
