"""Our networks as Torchreid models: conventions, BNNeck, registration, pretrained backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from downstream import models
from downstream.reid import model
from downstream.reid.backbone import BackboneSpec, build_backbone, pretrained_backbone
from downstream.reid.compat import torchreid
from downstream.reid.model import BNNeck, ReidNetwork
from search.binary import quant_convs
from search.cost import count
from search.errors import InputError
from search.weights import hash_state, save_weights

SMALL = BackboneSpec("DARTS_V2", "1bit", channels=4, cells=3)
IMAGES = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))


def test_torchreids_conventions() -> None:
    softmax = model.build(SMALL, 5, loss="softmax", bnneck=True)
    assert softmax(IMAGES).shape == (4, 5)
    triplet = model.build(SMALL, 5, loss="triplet", bnneck=True)
    logits, features = triplet(IMAGES)
    assert logits.shape == (4, 5) and features.shape == (4, triplet.feature_dim)
    for network in (softmax, triplet):
        assert network.eval()(IMAGES).shape == (4, network.feature_dim)


def test_bnneck_stands_between_feature_and_classifier() -> None:
    network = model.build(SMALL, 5, loss="triplet", bnneck=True)
    logits, features = network(IMAGES)
    assert isinstance(network.neck, BNNeck) and "bias" not in dict(network.neck.named_parameters())
    normed = (features - features.mean(0)) / (features.var(0, unbiased=False) + network.neck.eps).sqrt()
    assert torch.allclose(logits, normed @ network.classifier.weight.T, atol=1e-4)
    assert network.classifier.bias is None
    plain = model.build(SMALL, 5, loss="triplet", bnneck=False)
    logits, features = plain(IMAGES)
    assert torch.allclose(logits, plain.classifier(features))


def test_torchreids_engine_cannot_unfreeze_what_is_not_there() -> None:
    network = model.build(SMALL, 5, loss="softmax", bnneck=True)
    torchreid().utils.open_all_layers(network)
    network(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", ["DARTS_V2", "resnet-18", "bi-real-18"])
def test_built_by_torchreid(name: str) -> None:
    spec = BackboneSpec(name, "1bit", channels=4, cells=3)
    registered = model.register(f"genotype_{name}_1bit", spec)
    network = torchreid().models.build_model(registered, num_classes=7, loss="softmax", pretrained=False)
    assert isinstance(network, ReidNetwork) and network(IMAGES).shape == (4, 7)
    assert any(conv.input_quantiser.precision == 1 for _, conv in quant_convs(network))
    model.register(registered, spec)


def test_torchreids_own_names_are_taken() -> None:
    with pytest.raises(InputError, match="'resnet50' is Torchreid's own"):
        model.register("resnet50", SMALL)


def test_pretrained_without_weights_is_refused() -> None:
    model.register("genotype_bare", SMALL)
    with pytest.raises(
        InputError, match="genotype_bare was registered without weights; pass pretrained=False"
    ):
        torchreid().models.build_model("genotype_bare", num_classes=7)


def weights(path: Path, spec: BackboneSpec = SMALL, auxiliary: bool = True) -> nn.Module:
    trained = models.build(
        spec.network,
        precision=spec.precision,
        form=spec.form,
        channels=spec.channels,
        cells=spec.cells,
        classes=10,
        stem="imagenet",
        auxiliary=auxiliary,
    )
    save_weights(path, trained)
    return trained


def test_weights_of_the_classification_task(tmp_path: Path) -> None:
    trained = weights(tmp_path / "w.safetensors")
    backbone, report = pretrained_backbone(SMALL, tmp_path / "w.safetensors")
    assert report.matched and not report.missing and not report.unexpected
    assert torch.equal(backbone.eval().embed(IMAGES), trained.eval().embed(IMAGES))  # type: ignore[operator]


def test_last_stride_one_keeps_every_weight(tmp_path: Path) -> None:
    weights(tmp_path / "w.safetensors")
    wide = BackboneSpec("DARTS_V2", "1bit", channels=4, cells=3, last_stride=1)
    backbone, report = pretrained_backbone(wide, tmp_path / "w.safetensors")
    assert not report.missing
    maps = backbone.forward_features(IMAGES)  # type: ignore[operator]
    assert max(maps) == 16 and maps[16].shape[2:] == (4, 2)


def test_registered_with_weights(tmp_path: Path) -> None:
    trained = weights(tmp_path / "w.safetensors")
    model.register("genotype_trained", SMALL, weights=tmp_path / "w.safetensors", bnneck=False)
    network = torchreid().models.build_model("genotype_trained", num_classes=7).eval()
    assert torch.equal(network(IMAGES), trained.eval().embed(IMAGES))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BackboneSpec("DARTS_V2", "1bit", channels=8, cells=3), "config.channels: 4 in the file, 8 wanted"),
        (
            BackboneSpec("DARTS_V2", "real", channels=4, cells=3),
            "config.style.binary: True in the file, False wanted",
        ),
        (BackboneSpec("DARTS_V1", "1bit", channels=4, cells=3), "genotype.normal"),
        (BackboneSpec("resnet-18", "1bit", channels=4), "kind: 'genotype' in the file, 'handmade' wanted"),
    ],
)
def test_weights_of_another_network(tmp_path: Path, spec: BackboneSpec, message: str) -> None:
    weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="these weights are of another network") as caught:
        pretrained_backbone(spec, tmp_path / "w.safetensors")
    assert message in str(caught.value)


def test_hand_made_weights(tmp_path: Path) -> None:
    spec = BackboneSpec("resnet-18", "1bit", channels=4)
    weights(tmp_path / "w.safetensors", spec, auxiliary=False)
    backbone, report = pretrained_backbone(spec, tmp_path / "w.safetensors")
    assert report.matched and backbone.architecture["network"] == "resnet-18"  # type: ignore[index, call-overload]


def test_a_network_of_the_zoo() -> None:
    spec = BackboneSpec("osnet_x0_25", "real")
    network = model.build(spec, 5, loss="triplet", bnneck=True)
    logits, features = network(IMAGES)
    assert logits.shape == (4, 5) and features.shape == (4, 512)
    assert network.eval()(IMAGES).shape == (4, 512)
    with pytest.raises(InputError, match="osnet_x0_25 is real-valued"):
        build_backbone(BackboneSpec("osnet_x0_25", "1bit"))
    with pytest.raises(InputError, match="no model 'osnet_x9'"):
        build_backbone(BackboneSpec("osnet_x9", "real"))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("osnet_x1_0", 2.2e6, 0.98e9), ("osnet_x0_25", 0.2e6, 0.08e9)]
)
def test_the_zoo_costs_what_torchreids_model_zoo_prints(name: str, parameters: float, macs: float) -> None:
    """MODEL_ZOO.md, same-domain ReID, 256 x 128: parameters in millions, GFLOPs, without the classifier."""
    network = model.build(BackboneSpec(name, "real"), 5, loss="softmax", bnneck=False)
    network.classifier = nn.Identity()  # type: ignore[assignment]
    report = count(network, (3, 256, 128))
    assert round(report.parameters / 1e6, 1) * 1e6 == parameters
    assert round(report.flops / 1e9, 2) * 1e9 == macs
    assert report.bops == 0


@pytest.mark.parametrize("network", ["DARTS_V2", "bi-real-18", "osnet_x0_25"])
def test_rebuilt_from_its_description(network: str) -> None:
    spec = BackboneSpec(network, "real", channels=4, cells=3)
    first = model.build(spec, 5, loss="triplet", bnneck=True)
    second = model.rebuild(first.architecture)
    second.load_state_dict(first.state_dict())
    assert second.architecture_hash == first.architecture_hash
    assert hash_state(second) == hash_state(first)


def test_another_task_is_not_rebuilt() -> None:
    with pytest.raises(InputError, match="not of a re-identification network"):
        model.rebuild({"kind": "genotype"})
