from __future__ import annotations

from pathlib import Path

import pytest
import torch

from downstream.models import build, rebuild
from search.errors import InputError
from search.weights import hash_state, load_backbone, load_weights, read_header, save_weights


def network(**changes: object) -> torch.nn.Module:
    return build("DARTS_V2", **({"channels": 4, "cells": 3, "classes": 5} | changes))  # type: ignore[arg-type]


def test_a_file_rebuilds_and_fills_its_network(tmp_path: Path) -> None:
    first = network(form="released")
    save_weights(tmp_path / "w.safetensors", first, {"task": "test"})
    header = read_header(tmp_path / "w.safetensors")
    again = rebuild(header["architecture"])
    assert hash_state(again) != hash_state(first)
    assert load_weights(tmp_path / "w.safetensors", again)["task"] == "test"
    assert hash_state(again) == hash_state(first)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), first.eval()(x))


@pytest.mark.parametrize("changes", [{"channels": 8}, {"precision": "real"}, {"classes": 6}])
def test_another_architecture_is_refused_with_both_hashes(tmp_path: Path, changes: dict[str, object]) -> None:
    first, other = network(), network(**changes)
    save_weights(tmp_path / "w.safetensors", first)
    before = hash_state(other)
    with pytest.raises(InputError) as error:
        load_weights(tmp_path / "w.safetensors", other)
    assert first.architecture_hash[:12] in str(error.value)
    assert other.architecture_hash[:12] in str(error.value)
    assert hash_state(other) == before


def test_backbone_loads_whatever_the_classes(tmp_path: Path) -> None:
    first, other = network(), network(classes=9)
    save_weights(tmp_path / "w.safetensors", first)
    report = load_backbone(tmp_path / "w.safetensors", other)
    assert len(report.matched) == len(
        [key for key in first.state_dict() if not key.startswith("classifier.")]
    )
    assert report.missing == report.unexpected == ()
    assert torch.equal(other.stem.stem[0].weight, first.stem.stem[0].weight)


def test_another_backbone_is_refused_with_the_list(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", network())
    with pytest.raises(InputError, match=r"missing: cells\.") as error:
        load_backbone(tmp_path / "w.safetensors", network(channels=8))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x80\x04\x95pickle"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_header(tmp_path / "w.safetensors")
