from __future__ import annotations

import torch
from torch import nn

from search.binary import QuantConv2d, SignActivation, SignWeight, set_stage
from search.flips import SignWatch


def conv() -> QuantConv2d:
    layer = QuantConv2d(2, 3, 3, input_quantiser=SignActivation(), weight_quantiser=SignWeight("mean_abs", 3))
    nn.init.constant_(layer.weight, 0.5)
    return layer


def test_only_changed_signs_of_1_bit_weights_count() -> None:
    network = nn.Sequential(conv(), nn.Conv2d(3, 3, 1), QuantConv2d(3, 3, 1))
    watch = SignWatch(network)
    with torch.no_grad():
        network[0].weight.view(-1)[:4] = torch.tensor([-0.1, -0.0, 0.0, 0.2])
        for layer in network[1:]:
            layer.weight.neg_()
    flips = watch.flips()
    assert (flips.changed, flips.total, flips.share) == (1, 54, 1 / 54)


def test_only_the_chosen_weights_count() -> None:
    network = nn.Sequential(conv(), conv())
    watch = SignWatch(network, only=list(network[1].parameters()))
    with torch.no_grad():
        network[0].weight.neg_()
    assert (watch.flips().changed, watch.flips().total) == (0, 54)


def test_real_weights_have_no_signs_to_flip() -> None:
    network = nn.Sequential(conv())
    set_stage(network, activations=True, weights=False)
    flips = SignWatch(network).flips()
    assert (flips.changed, flips.total, flips.share) == (0, 0, None)
