"""The paper profile without its data: one training step of every stage at the full size of its networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from downstream.classification.network import build_network
from downstream.classification.teacher import load_teacher
from downstream.classification.trainer import Trainer
from pipelines import params, profile
from search.binary import quant_convs, reconstruction_error, sign
from search.data import Batches, Images
from search.genotype import published
from search.methods import METHODS
from search.operations import build_operation
from search.strategies.base import Context, Strategy
from search.style import OperationStyle
from search.training import ComputeSettings, Resume, set_up

PAPER = params.load(profile.path_of("paper"))
COMPUTE = ComputeSettings(device="cpu", precision="32-true", threads=1)


def pictures(count: int, size: int, classes: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % classes, classes)


def test_every_method_of_the_literature_is_in_it() -> None:
    assert set(PAPER.search.methods) == set(METHODS)
    assert PAPER.paper_scale and len(PAPER.search.seeds) >= 3


@pytest.mark.parametrize("method", ["cp_nas", "random"])
def test_one_step_of_a_search(method: str) -> None:
    """The first step of the strategy on four images: C = 16, 8 cells."""
    space = PAPER.search.space.model_copy(update={"batch_size": 2})
    context = Context(set_up(COMPUTE, 0), pictures(4, 32, 10), pictures(2, 32, 10), space, 0)
    strategy: Strategy = METHODS[method].strategy(context, PAPER.search.method[method].settings)
    (row,) = strategy.step(0)
    assert context.budget.images_seen in (4, 8)
    assert 0 <= row["accuracy" if method == "random" else "accuracy_child"] <= 1


@pytest.mark.parametrize(
    ("task", "size", "classes", "batch"), [("cifar10", 32, 10, 2), ("imagenet", 224, 1000, 1)]
)
def test_one_step_of_retraining(task: str, size: int, classes: int, batch: int, tmp_path: Path) -> None:
    """C = 36, 20 cells at 32 x 32; the released form, C = 108, 10 cells at 224 x 224."""
    settings = getattr(PAPER.retrain, task)
    fabric = set_up(COMPUTE, 0)
    model = build_network(published("DDPNAS_MCN_2"), "1bit", classes, settings)
    batches = Batches(pictures(2, size, classes), batch)
    teacher = None
    if settings.loss.teacher is not None:
        torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "resnet34.pth")
        teacher = load_teacher(tmp_path / "resnet34.pth", task, classes)
    trainer = Trainer(
        fabric,
        model,
        settings,
        classes,
        batches,
        batches,
        0,
        Resume(tmp_path, {}, "code"),
        quiet=True,
        teacher=teacher,
    )
    optimiser = trainer._optimiser(settings.stages[-1])
    before = model.classifier.weight.detach().clone()
    model.train()
    if batch == 1:
        model.eval()  # one image has no batch statistics at 1 x 1
    x, y = next(batches.epoch(0))
    terms, _ = trainer._terms(x, y, torch.arange(batch))
    loss = torch.stack(list(terms.values())).sum()
    if teacher is not None:  # soft labels alone: the hard ones decide nothing
        others, _ = trainer._terms(x, (y + 1) % classes, torch.arange(batch))
        assert others.keys() == terms.keys() and all(torch.equal(others[name], terms[name]) for name in terms)
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, model.classifier.weight)
    assert all(p.grad is not None for p in model.parameters())


def test_the_reconstruction_pulls_as_in_the_release() -> None:
    """As coded there: dW = g |M| + theta (W - 0.02 sign(W) |M|), theta = 1e-4, for a gradient g of the binary weight.

    Ours carries the scale's constant 0.02 in all of it, which AdamW normalises away.
    """
    torch.manual_seed(0)
    conv = build_operation("sep_conv_3x3", 4, 1, OperationStyle(form="released"))
    conv = next(c for _, c in quant_convs(conv))
    quantiser, w = conv.weight_quantiser, conv.weight
    with torch.no_grad():
        quantiser.magnitude.normal_()
    g = torch.randn_like(w)
    loss = (g * quantiser(w)).sum()
    loss = loss + PAPER.retrain.imagenet.loss.reconstruction_weight * reconstruction_error(
        nn.ModuleList([conv])
    )
    (ours,) = torch.autograd.grad(loss, w)
    m, gain = quantiser.magnitude.detach().abs(), 0.02
    release = g * m + 1e-4 * (w - gain * sign(w) * m)
    assert quantiser.gain == gain
    torch.testing.assert_close(ours, gain * release.detach(), rtol=1e-4, atol=1e-7)


def test_one_step_of_person_reidentification() -> None:
    pytest.importorskip("torchreid")
    from downstream.reid.backbone import BackboneSpec
    from downstream.reid.model import build

    settings = PAPER.reid
    spec = BackboneSpec(
        published("DDPNAS_MCN_2"), "1bit", settings.form, settings.channels, settings.cells, 1
    )
    model = build(spec, 751, loss=settings.loss, bnneck=settings.bnneck).train()
    logits, features = model(torch.randn(2, 3, settings.height, settings.width))
    assert logits.shape == (2, 751) and features.shape[0] == 2
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_one_step_of_detection(tmp_path: Path) -> None:
    """Faster R-CNN + FPN 256 with 1-bit neck on one picture of 1000 x 600 of a VOC folder."""
    pytest.importorskip("mmdet")
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from downstream.detection.compose import BackboneSpec, compose
    from downstream.detection.data import read_manifest
    from downstream.detection.train import make_runner
    from tests.downstream.test_detection_data import make_voc

    settings = PAPER.detection.model_copy(update={"workers": 0, "batch_size": 1})
    data = read_manifest(make_voc(tmp_path / "voc", [(1, 1, 40, 40)]))
    spec = BackboneSpec("DDPNAS_MCN_2", "1bit", settings.form, settings.channels, settings.cells)
    runner = make_runner(compose(settings, spec, data, seed=0, folder=tmp_path / "run"), "paper")
    sample = DetDataSample(
        metainfo={"img_shape": (600, 1000), "pad_shape": (600, 1000), "batch_input_shape": (600, 1000)}
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[100.0, 100.0, 400.0, 500.0]]), labels=torch.tensor([0])
    )
    losses: dict[str, Any] = runner.model.loss(torch.randn(1, 3, 600, 1000), [sample])
    total = sum(value.sum() for key, value in losses.items() if "loss" in key for value in _listed(value))
    total.backward()
    assert torch.isfinite(total)


def _listed(value: Tensor | list[Tensor]) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("imagenet", "datasets/imagenet"),
        ("detection", "datasets/VOCdevkit"),
        ("reid", "datasets/Market-1501-v15.09.15"),
    ],
)
def test_a_missing_data_folder_is_named(name: str, folder: str, tmp_path: Path, monkeypatch) -> None:
    from pipelines.prepare import prepare
    from search.errors import InputError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=folder):
        prepare(name, getattr(PAPER.data, name), tmp_path / "data")
    assert not (tmp_path / "data" / name).exists()


def test_the_released_network_is_the_profiles(tmp_path: Path) -> None:
    """retrain.imagenet of the paper profile builds the network whose size the authors' module has."""
    from search.cost import count

    model = build_network(published("DDPNAS_MCN_2"), "1bit", 1000, PAPER.retrain.imagenet)
    found = count(model, (3, PAPER.retrain.imagenet.crop.size, PAPER.retrain.imagenet.crop.size))
    assert found.to_dict()["params"] == 14_505_886  # reference: the authors' module, commit e801d50
    assert replace(model.config, classes=10).channels == 108
