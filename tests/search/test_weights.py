from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from downstream.models import build, load_network, rebuild
from search.errors import InputError
from search.genotype import Genotype, published
from search.weights import (
    has_architecture,
    hash_state,
    load_backbone,
    load_weights,
    read_header,
    require_architecture,
    save_weights,
)


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


def test_another_genotype_is_refused_with_both_hashes(tmp_path: Path) -> None:
    """The same tensors in another wiring: names and shapes alone would not tell."""
    first = published("DARTS_V2")
    values = first.to_dict()
    other = Genotype.from_dict(json.loads(json.dumps(values).replace("max_pool", "avg_pool")))
    size = {"channels": 4, "cells": 3, "classes": 5}
    trained, another = build(first, **size), build(other, **size)
    assert {k: v.shape for k, v in trained.state_dict().items()} == {
        k: v.shape for k, v in another.state_dict().items()
    }
    save_weights(tmp_path / "w.safetensors", trained)
    with pytest.raises(InputError) as error:
        load_weights(tmp_path / "w.safetensors", another)
    assert trained.architecture_hash[:12] in str(error.value)
    assert another.architecture_hash[:12] in str(error.value)


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


def test_headers_and_tensors_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    first = network()
    header = {"architecture": json.dumps(first.architecture), "architecture_hash": first.architecture_hash}
    save_file({"a": torch.zeros(2)}, path, metadata=header)
    assert has_architecture(path)
    with pytest.raises(InputError, match="its tensors are not those of its architecture"):
        load_weights(path, first)
    save_file({"a": torch.zeros(2)}, path, metadata={"architecture": "{"})
    with pytest.raises(InputError, match="the architecture in its header is not valid JSON"):
        read_header(path)
    save_file({"a": torch.zeros(2)}, path, metadata={"architecture": "{}"})
    with pytest.raises(InputError, match="these weights are of architecture None, the network is"):
        load_weights(path, first)
    with pytest.raises(InputError, match="of an architecture that this version does not know"):
        load_network(path)
    save_file({"a": torch.zeros(2)}, path)
    assert not has_architecture(path)


def test_the_same_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    """Shapes do not tell two gradient estimators apart, the header does; heads may differ."""
    save_weights(tmp_path / "w.safetensors", network())
    wanted = network(classes=9).architecture
    assert require_architecture(tmp_path / "w.safetensors", wanted) == network().architecture
    style = {**wanted["config"]["style"], "estimator": "ste"}
    other = {**wanted, "config": {**wanted["config"], "style": style}}
    with pytest.raises(InputError, match="config.style.estimator: 'bireal' in the file, 'ste' wanted"):
        require_architecture(tmp_path / "w.safetensors", other)
    require_architecture(
        tmp_path / "w.safetensors", other, lambda key: "style" in key or key.endswith("classes")
    )


def test_versions_of_the_header(tmp_path: Path) -> None:
    """Today's states its version, a file of before has none and is read, a newer one is refused in one line."""
    save_weights(tmp_path / "now.safetensors", network())
    assert read_header(tmp_path / "now.safetensors")["schema"] == 2
    tensors = {"a": torch.zeros(2)}
    header = {"architecture": "{}", "architecture_hash": "00"}
    save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    assert read_header(tmp_path / "old.safetensors") == header | {"architecture": {}, "schema": 2}
    save_file(tensors, tmp_path / "new.safetensors", metadata=header | {"schema": "3"})
    with pytest.raises(InputError, match=r"new.safetensors: schema 3 is not a version that this code reads"):
        read_header(tmp_path / "new.safetensors")
