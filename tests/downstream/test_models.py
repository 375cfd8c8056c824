"""One door to every network: what all of them have in common, and what the door refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from downstream.models import build, network_names, rebuild
from search.backbone import Backbone, Embedding
from search.errors import InputError
from search.genotype import Genotype, published, published_names

SIZE = {"channels": 4, "cells": 3, "classes": 5}


def _model(name: str | Genotype, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(name, **{**SIZE, **more})


def test_names_are_those_of_the_published_and_the_hand_made() -> None:
    names = network_names()
    assert set(published_names()) < set(names)
    assert {
        "xnor-net-18",
        "bi-real-18",
        "bi-real-34",
        "reactnet-18",
        "reactnet-a",
        "resnet-18",
        "resnet-34",
    } < set(names)


@pytest.mark.parametrize("precision", ["1bit", "real"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", network_names())
def test_every_network_keeps_the_contract(name: str, stem: str, precision: str) -> None:
    model = _model(name, stem=stem, precision=precision).eval()
    x = torch.randn(2, 3, 33, 37)
    with torch.no_grad():
        features = model.forward_features(x)
        assert model(x).shape == (2, 5)
        assert model.embed(x).shape == (2, model.num_features)
    assert {4, 8, 16, 32} == set(features) if stem == "imagenet" else {1, 2, 4} <= set(features)
    assert {stride: feature.shape[1] for stride, feature in features.items()} == model.feature_channels
    assert isinstance(model.classifier, nn.Linear) and model.classifier.in_features == model.num_features


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("name", ["DDPNAS_MCN_2", "reactnet-a"])
def test_description_rebuilds_the_network(name: str, form: str) -> None:
    model = _model(name, form=form, stem="imagenet", auxiliary=name == "DDPNAS_MCN_2").eval()
    again = rebuild(model.architecture).eval()
    assert again.architecture_hash == model.architecture_hash
    again.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))


def test_a_genotype_and_its_name_give_the_same_network() -> None:
    assert _model(published("DARTS_V1")).architecture_hash == _model("darts_v1").architecture_hash


def test_settings_of_training_are_no_part_of_the_architecture() -> None:
    assert (
        _model("DARTS_V1", drop_path=0.3, checkpointing=True).architecture_hash
        == _model("DARTS_V1").architecture_hash
    )


def test_auxiliary_head_in_training() -> None:
    model = _model("DARTS_V2", auxiliary=True)
    logits, auxiliary = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == auxiliary.shape == (2, 5)


@pytest.mark.parametrize("name", ["DARTS_V2", "resnet-18"])
def test_last_stride_reaches_every_network(name: str) -> None:
    features = _model(name, stem="imagenet", last_stride=1).forward_features(torch.randn(2, 3, 64, 64))
    assert list(features) == [4, 8, 16] and features[16].shape[2:] == (4, 4)


def test_hand_made_networks_take_their_own_width_by_default() -> None:
    with torch.device("meta"):
        assert build("reactnet-a", classes=10).num_features == 1024
        assert build("resnet-34", classes=10).num_features == 512


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet-19", {}, "unknown network 'resnet-19', did you mean 'resnet-18'?"),
        ("", {}, "unknown network ''"),
        ("resnet-18", {"precision": "2bit"}, "'2bit' is no precision; allowed: 1bit, real"),
        ("DARTS_V2", {"channels": None}, "the size of DARTS_V2 is missing"),
        ("DARTS_V2", {"form": "darts"}, "the form 'darts' is real-valued"),
        ("DARTS_V2", {"form": "bnas"}, "'bnas' is no form"),
    ],
)
def test_wrong_settings_are_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _model(name, **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["DARTS_V1", "PC_DARTS_cifar", "DDPNAS_MCN_2"])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_last_stride_one_changes_no_weight(name: str, form: str) -> None:
    """Skip connections of the last reduction cell and the cell after it keep their modules."""
    narrow = build(name, form=form, channels=4, cells=5, stem="imagenet")  # type: ignore[arg-type]
    wide = build(name, form=form, channels=4, cells=5, stem="imagenet", last_stride=1)  # type: ignore[arg-type]
    wide.load_state_dict(narrow.state_dict())
    maps = wide.forward_features(torch.randn(2, 3, 65, 64))
    assert {stride: tuple(map_.shape[2:]) for stride, map_ in maps.items()} == {
        4: (17, 16),
        8: (9, 8),
        16: (5, 4),
    }


@pytest.mark.parametrize("precision", ["1bit", "real"])
@pytest.mark.parametrize("name", network_names())
def test_every_network_is_a_backbone(name: str, precision: str) -> None:
    """What detection and re-identification read of a network, found or hand-designed."""
    model = _model(name, precision=precision, stem="imagenet")
    assert isinstance(model, Backbone) and isinstance(model, Embedding)
    assert model.precision == precision
    found = model.architecture.get("genotype")
    assert model.genotype_hash == (Genotype.from_dict(found).hash if found else None)
    assert set(model.feature_channels) - set(model.strides) <= {4}, "the stem's own map besides"
    assert model.feature_channels[max(model.strides)] == model.num_features
    assert not isinstance(nn.Linear(1, 1), Embedding)
