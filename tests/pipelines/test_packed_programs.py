"""The programs pack and latency, on small networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from downstream.models import build, load_network
from downstream.packed import load
from pipelines import latency, pack
from search.errors import InputError
from search.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(0)
    network = build("DARTS_V2", channels=4, cells=3)
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 32, 32))
    save_weights(path, network, {"task": "retrain-cifar10"})
    return path


def test_the_packed_file_alone_gives_the_networks_logits(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed.safetensors"
    pack.main([str(weights), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "convolutions as W1A1: XOR and popcount" in printed
    assert f"{out.stat().st_size} bytes" in printed
    packed, (network, header) = load(out), load_network(weights)
    assert packed.architecture_hash == header["architecture_hash"]
    assert packed.program.metadata["task"] == "retrain-cifar10"
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(packed(x), network.eval()(x), atol=1e-5)
    with pytest.raises(InputError, match="is no packed network"):
        load(weights)


@pytest.mark.parametrize("packed_first", [True, False])
def test_latency_of_a_file(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], packed_first: bool
) -> None:
    path = weights
    if packed_first:
        path = tmp_path / "packed.safetensors"
        pack.main([str(weights), "--out", str(path)])
        capsys.readouterr()
    latency.main([str(path), "--seconds", "0", "--batch", "2", "--json", "--per-layer"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["milliseconds"]) == {"packed", "simulated", "real_twin"}
    for timing in result["milliseconds"].values():
        assert 0 < timing["lower"] <= timing["median"] <= timing["upper"] and timing["calls"] == 5
    assert result["batch"] == 2 and result["input"] == [32, 32] and result["plan_bytes"] > 0
    assert any(layer["kind"] == "binary" for layer in result["layers"])
    if packed_first:
        assert result["file_bytes"] == path.stat().st_size


def test_latency_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    latency.main(["bi-real-18", "--channels", "8", "--input", "64x48", "--seconds", "0"])
    printed = capsys.readouterr().out
    assert "64 x 48" in printed and "real_twin" in printed and "x packed" in printed


def test_wrong_arguments_are_one_line(weights: Path) -> None:
    with pytest.raises(InputError, match="--cells: the file says what it holds"):
        latency.main([str(weights), "--cells", "3"])
    with pytest.raises(InputError, match="unknown network 'nothing'"):
        latency.main(["nothing"])
    with pytest.raises(SystemExit):
        latency.main(["bi-real-18", "--batch", "0"])
