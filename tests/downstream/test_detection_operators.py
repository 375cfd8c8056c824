"""mmcv's operators on torchvision's kernels, against independent references."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F

pytest.importorskip("mmcv", reason="the extra 'detection' is not installed")

from downstream.detection import operators  # noqa: E402
from search.errors import InputError  # noqa: E402

ROOT = Path(__file__).parents[2]
SOURCE = operators.install()


def boxes_and_scores(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping boxes in 64 x 64 pixels with distinct scores."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 12
    size = 16 + torch.rand(count, 2, generator=generator) * 16
    return torch.cat([corner, corner + size], dim=1), torch.randperm(count, generator=generator) / count


def plain_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """Greedy NMS in plain Python, straight from its definition."""

    def area(box: np.ndarray) -> float:
        return max(0.0, box[2] - box[0] + offset) * max(0.0, box[3] - box[1] + offset)

    kept: list[int] = []
    for candidate in np.argsort(-scores):
        for other in kept:
            a, b = boxes[candidate], boxes[other]
            shared = area(np.array([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]))
            if shared / (area(a) + area(b) - shared) > threshold:
                break
        else:
            kept.append(int(candidate))
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_is_greedy_nms(threshold: float, offset: int) -> None:
    boxes, scores = boxes_and_scores(80)
    from mmcv.ops import nms

    kept, indices = nms(boxes, scores, threshold, offset=offset)
    expected = plain_nms(boxes.numpy(), scores.numpy(), threshold, offset)
    assert indices.tolist() == expected
    assert 1 < len(expected) < 80
    torch.testing.assert_close(kept, torch.cat([boxes, scores[:, None]], 1)[expected])


def test_nms_drops_by_score_and_number() -> None:
    from mmcv.ops import nms

    boxes, scores = boxes_and_scores(80)
    _, indices = nms(boxes, scores, 0.5, score_threshold=0.4, max_num=5)
    above = [i for i in plain_nms(boxes.numpy(), scores.numpy(), 0.5, 0) if scores[i] > 0.4]
    assert indices.tolist() == above[:5]


@pytest.mark.parametrize("split", [10_000, 10])
def test_batched_nms_treats_each_class_alone(split: int) -> None:
    from mmcv.ops import batched_nms

    boxes, scores = boxes_and_scores(60)
    labels = torch.arange(60) % 3
    kept, indices = batched_nms(
        boxes, scores, labels, {"type": "nms", "iou_threshold": 0.4, "split_thr": split}
    )
    expected: list[int] = []
    for label in range(3):
        own = torch.nonzero(labels == label).flatten()
        expected += [int(own[i]) for i in plain_nms(boxes[own].numpy(), scores[own].numpy(), 0.4, 0)]
    assert indices.tolist() == sorted(expected, key=lambda i: -float(scores[i]))
    torch.testing.assert_close(kept[:, 4], scores[indices])


def test_no_boxes_give_no_boxes() -> None:
    from mmcv.ops import nms

    kept, indices = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0, 5) and indices.numel() == 0


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [0, 2])
def test_roi_align_is_torchvisions_in_value_and_gradient(aligned: bool, sampling: int) -> None:
    from mmcv.ops import RoIAlign

    torch.manual_seed(0)
    rois = torch.tensor([[0.0, 1.3, 2.7, 30.2, 25.9], [1.0, 0.0, 0.0, 63.0, 63.0], [1.0, 5.5, 5.5, 6.0, 6.0]])
    ours = torch.randn(2, 3, 16, 16, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    weight = torch.randn(3, 3, 7, 7)
    found = RoIAlign(7, spatial_scale=0.25, sampling_ratio=sampling, aligned=aligned)(ours, rois)
    expected = torchvision.ops.roi_align(theirs, rois, 7, 0.25, sampling, aligned)
    torch.testing.assert_close(found, expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert float(ours.grad.abs().sum()) > 0


def test_roi_align_of_a_linear_map_is_the_map_at_the_bins_centres() -> None:
    from mmcv.ops import RoIAlign

    # Bilinear interpolation and averaging are exact on f(x, y) = 2x + 3y, away from the border.
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    found = RoIAlign((2, 4), 1.0, 2, aligned=True)(
        (2 * x + 3 * y)[None, None], torch.tensor([[0, 4.0, 6.0, 12.0, 14.0]])
    )
    centres_x = torch.tensor([5.0, 7.0, 9.0, 11.0]) - 0.5
    centres_y = torch.tensor([8.0, 12.0]) - 0.5
    torch.testing.assert_close(found[0, 0], 2 * centres_x[None, :] + 3 * centres_y[:, None])


@pytest.mark.skipif(
    operators.compiled(),
    reason="compiled mmcv has the focal loss for CUDA alone; MMDetection has its own for the CPU",
)
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_focal_loss_is_torchvisions(gamma: float, alpha: float) -> None:
    from mmcv.ops import sigmoid_focal_loss

    torch.manual_seed(1)
    logits = (torch.randn(40, 5) * 4).requires_grad_()
    target = torch.randint(0, 6, (40,))  # 5 is background
    one_hot = F.one_hot(target, 6)[:, :5].float()
    reference = logits.detach().clone().requires_grad_()
    expected = torchvision.ops.sigmoid_focal_loss(reference, one_hot, alpha=alpha, gamma=gamma)
    found = sigmoid_focal_loss(logits, target, gamma, alpha, None, "none")
    torch.testing.assert_close(found, expected)
    weight = torch.rand(40, 5)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(logits.grad, reference.grad)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6)])
def test_focal_loss_is_the_one_mmdet_takes_on_the_cpu(gamma: float, alpha: float) -> None:
    losses = pytest.importorskip(
        "mmdet.models.losses.focal_loss", reason="the extra 'detection' is not installed"
    )
    torch.manual_seed(1)
    logits, target = torch.randn(40, 5) * 4, torch.randint(0, 6, (40,))  # 5 is background
    reference = logits.clone().requires_grad_()
    one_hot = F.one_hot(target, 6)[:, :5].float()
    expected = losses.py_sigmoid_focal_loss(reference, one_hot, gamma=gamma, alpha=alpha, reduction="none")
    expected.sum().backward()
    output, gradient = torch.zeros_like(logits), torch.zeros_like(logits)
    operators.sigmoid_focal_loss_forward(logits, target, torch.zeros(0), output, gamma=gamma, alpha=alpha)
    operators.sigmoid_focal_loss_backward(logits, target, torch.zeros(0), gradient, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(gradient, reference.grad)


def test_focal_loss_gradient_is_the_numerical_derivative() -> None:
    torch.manual_seed(2)
    x = torch.randn(6, 3, dtype=torch.float64) * 3
    target = torch.tensor([0, 1, 2, 3, 3, 1])
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        output = torch.zeros_like(logits)
        operators.sigmoid_focal_loss_forward(logits, target, weight, output, gamma=2.0, alpha=0.25)
        return output

    gradient = torch.zeros_like(x)
    operators.sigmoid_focal_loss_backward(x, target, weight, gradient, gamma=2.0, alpha=0.25)
    step = 1e-6
    numerical = (loss(x + step) - loss(x - step)) / (2 * step)
    torch.testing.assert_close(gradient, numerical, rtol=1e-6, atol=1e-8)


def test_focal_loss_stays_finite_at_large_logits() -> None:
    x = torch.tensor([[80.0, -80.0], [-80.0, 80.0]])
    output, gradient = torch.zeros(2, 2), torch.zeros(2, 2)
    operators.sigmoid_focal_loss_forward(
        x, torch.tensor([0, 0]), torch.zeros(0), output, gamma=2.0, alpha=0.25
    )
    operators.sigmoid_focal_loss_backward(
        x, torch.tensor([0, 0]), torch.zeros(0), gradient, gamma=2.0, alpha=0.25
    )
    # Right answers cost nothing; wrong ones alpha * |x| and (1 - alpha) * |x|.
    torch.testing.assert_close(output, torch.tensor([[0.0, 0.0], [20.0, 60.0]]))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [-0.25, 0.75]]))


@pytest.mark.skipif(operators.compiled(), reason="mmcv is compiled: every operator is there")
def test_another_operator_stops_and_names_itself() -> None:
    from mmcv.ops import soft_nms

    with pytest.raises(InputError, match="'softnms' needs compiled mmcv"):
        soft_nms(*boxes_and_scores(4))


def test_max_pooling_roi_align_stops() -> None:
    empty = torch.zeros(0)
    with pytest.raises(InputError, match="max pooling"):
        operators.roi_align_forward(
            torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), torch.zeros(1, 1, 2, 2), empty, empty,
            aligned_height=2, aligned_width=2, spatial_scale=1.0, sampling_ratio=0, pool_mode=0, aligned=True,
        )  # fmt: skip


def test_it_says_which_operators_it_uses() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "downstream.detection.operators"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == f"NMS, RoIAlign, focal loss: {SOURCE}"
    assert SOURCE.startswith(("mmcv ", "torchvision "))


def test_the_persisted_module_is_ours(tmp_path: Path) -> None:
    # A copy of the stub in a package of its own: the environment stays as it is.
    package = tmp_path / "stub_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_ext.py").write_text(operators._STUB)
    code = (
        "import stub_package._ext as e; from downstream.detection import operators as o; "
        "assert e.nms is o.nms; e.softnms()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "InputError: mmcv operator 'softnms' needs compiled mmcv" in found.stderr


# ---- the same calls to compiled mmcv, where it is installed (tools/build_mmcv.py)

needs_compiled = pytest.mark.skipif(
    not operators.compiled(), reason="only mmcv without compiled operators is installed"
)


def compiled_module() -> Any:
    """``mmcv._ext`` as mmcv's build made it."""
    return importlib.import_module("mmcv._ext")


@needs_compiled
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_compiled_nms_keeps_the_same(threshold: float, offset: int) -> None:
    for seed in range(5):
        boxes, scores = boxes_and_scores(120, seed)
        theirs = compiled_module().nms(boxes, scores, iou_threshold=threshold, offset=offset)
        ours = operators.nms(boxes, scores, threshold, offset)
        assert 1 < len(ours) < 120
        assert ours.tolist() == theirs.tolist()


@needs_compiled
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("side", [7, 3])
def test_compiled_roi_align_gives_the_same(aligned: bool, sampling: int, side: int) -> None:
    torch.manual_seed(0)
    rois = torch.tensor(
        [[0.0, 1.3, 2.7, 30.2, 25.9], [1.0, 0.0, 0.0, 63.0, 63.0], [1.0, 50.0, 40.0, 80.0, 70.0]]
    )  # the last one leaves the map
    how = {
        "aligned_height": side, "aligned_width": side, "spatial_scale": 0.25, "sampling_ratio": sampling,
        "pool_mode": 1, "aligned": aligned,
    }  # fmt: skip
    x, gradient, none = torch.randn(2, 3, 16, 16), torch.randn(3, 3, side, side), torch.zeros(0)
    results = []
    for module in (compiled_module(), operators):
        pooled, back = torch.zeros(3, 3, side, side), torch.zeros_like(x)
        module.roi_align_forward(x, rois, pooled, none, none, **how)
        module.roi_align_backward(gradient, rois, none, none, back, **how)
        results.append((pooled, back))
    for theirs, ours in zip(*results, strict=True):
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@needs_compiled
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled mmcv has the focal loss for CUDA alone")
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_focal_loss_gives_the_same(gamma: float, alpha: float, weighted: bool) -> None:
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(60, 5).cuda(), torch.randint(0, 6, (60,)).cuda()
    weight = torch.rand(5).cuda() if weighted else torch.zeros(0).cuda()
    results = []
    for module in (compiled_module(), operators):
        loss, slope = torch.zeros_like(logits), torch.zeros_like(logits)
        module.sigmoid_focal_loss_forward(logits, target, weight, loss, gamma=gamma, alpha=alpha)
        module.sigmoid_focal_loss_backward(logits, target, weight, slope, gamma=gamma, alpha=alpha)
        results.append((loss, slope))
    for theirs, ours in zip(*results, strict=True):
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@needs_compiled
@pytest.mark.parametrize("name", ["faster_rcnn", "retinanet"])
def test_a_detector_has_the_same_losses_gradients_and_detections(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole detector, once on compiled mmcv and once with this suite's operators put in their place."""
    pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")
    theirs = one_step(name, tmp_path / "theirs")
    called: set[str] = set()
    for key, kernel in operators.KERNELS.items():
        monkeypatch.setattr(compiled_module(), key, noted(key, kernel, called))
    ours = one_step(name, tmp_path / "ours")
    assert called == {"nms"} | (
        {"roi_align_forward", "roi_align_backward"} if name == "faster_rcnn" else set()
    )
    for one, other in zip(theirs, ours, strict=True):
        assert len(one) > 0 and one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=1e-4, atol=1e-5)
    assert len(theirs[2]["scores"].unique()) > 10  # the order of equal scores would be free


def noted(name: str, kernel: Any, called: set[str]) -> Any:
    """The kernel, which notes that it was called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        called.add(name)
        return kernel(*args, **kwargs)

    return call


def one_step(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Losses, gradients and detections of one training step at tiny settings."""
    from mmdet.registry import MODELS
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import init_default_scope

    from downstream.detection.compose import BackboneSpec, compose
    from downstream.detection.data import read_manifest
    from downstream.detection.settings import DetectionSettings
    from downstream.detection.train import make_runner
    from tests.downstream.test_detection_data import make_scenes
    from tests.downstream.test_detection_train import TINY

    data = read_manifest(make_scenes(folder))
    settings = DetectionSettings(**{**TINY, "detector": name, "score_threshold": 0.0, "flip": 0.0})
    spec = BackboneSpec("PC_DARTS_cifar", "real", "paper", 4, 3)
    config = compose(settings, spec, data, seed=0, folder=folder)
    init_default_scope("mmdet")
    runner = make_runner(config, "step")
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "head" in key:  # heads start with scores that are all but equal
                value.add_(0.1 * torch.randn_like(value))
    model.train()
    dataset = runner.build_dataloader(config.train_dataloader, seed=0).dataset
    batch = model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), training=True)
    torch.manual_seed(0)
    total, parts = model.parse_losses(model(**batch, mode="loss"))
    total.backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    model.eval()
    tests = runner.build_dataloader(config.test_dataloader, seed=0).dataset
    with torch.no_grad():
        found = model.test_step(pseudo_collate([tests[0]]))[0].pred_instances
    return dict(parts), gradients, {key: found[key] for key in ("bboxes", "scores", "labels")}
