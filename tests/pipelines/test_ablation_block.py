"""The profiles that compare forms and choices of a block: what they name exists, what is matched matches."""

from __future__ import annotations

import pytest
import torch

from downstream.classification.network import build_network
from downstream.classification.settings import VARIANT
from pipelines import layers
from pipelines.derive import adopted
from search.cost import count
from search.errors import InputError

PROFILES = ("ablation-block", "ablation-block-parent")


def strict_ops(profile: str, network: str, precision: str = "1bit") -> float:
    """Of a network of the profile, at the size it is trained at."""
    recipe = layers.load(profile).retrain.imagenet
    with torch.device("meta"):
        model = build_network(adopted(network).network, precision, 10, recipe.of(network))
    return count(model, (3, recipe.crop.size, recipe.crop.size)).ops_strict


@pytest.mark.parametrize("name", PROFILES)
def test_every_variant_is_run_and_three_seeds_are(name: str) -> None:
    settings = layers.load(name)
    used = {network.partition(VARIANT)[2] for network in settings.runs.imagenet.networks} - {""}
    # the profile of the real-valued networks inherits the other's variants
    own = set(layers.own(name)["retrain"]["imagenet"]["variants"])
    assert own <= used <= set(settings.retrain.imagenet.variants)
    assert len(settings.runs.imagenet.seeds) >= 3 and settings.runs.imagenet.networks == settings.runs.adopted


def test_networks_that_are_to_be_matched_have_the_same_strict_ops() -> None:
    name = "ablation-block"
    wide = [network for network in layers.load(name).runs.adopted if "--wide-" in network]
    target = strict_ops(name, "resnet-18")
    assert len(wide) == 3 and strict_ops(name, "bi-real-18") == strict_ops(name, "reactnet-18") == target
    for network in wide:
        assert strict_ops(name, network) == pytest.approx(target, rel=0.1), network


def test_variants_differ_in_what_they_say() -> None:
    """As many architectures as 1-bit networks, but the gradient rule of weights is one too."""
    settings = layers.load("ablation-block")
    hashes = {}
    for network in settings.runs.adopted:
        with torch.device("meta"):
            model = build_network(adopted(network).network, "1bit", 10, settings.retrain.imagenet.of(network))
        hashes[network] = model.architecture_hash
    assert len(set(hashes.values())) == len(hashes)


def test_a_variant_is_a_network_of_the_chain() -> None:
    entry = adopted("DDPNAS_MCN_2--w1a32")
    assert (
        entry.name == "DDPNAS_MCN_2--w1a32" and entry.genotype_hash == adopted("DDPNAS_MCN_2").genotype_hash
    )
    assert adopted("resnet-18--narrow").network == "resnet-18"
    with pytest.raises(InputError, match="no published genotype"):
        adopted("DDPNAS--w1a32")
