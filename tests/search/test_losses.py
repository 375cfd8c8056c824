from __future__ import annotations

import pytest
import torch
from torch import nn

from search.binary import QuantConv2d, SignActivation, SignWeight, reconstruction_error, set_stage
from search.losses import ClassMeanLoss, distillation, kernel_loss


def conv(scale: str = "mean_abs") -> QuantConv2d:
    torch.manual_seed(0)
    return QuantConv2d(
        2,
        3,
        3,
        padding=1,
        input_quantiser=SignActivation(),
        weight_quantiser=SignWeight(scale, 3),  # type: ignore[arg-type]
    ).double()


def test_kernel_loss_is_the_sum_over_filters_of_the_mean_squared_error() -> None:
    model = nn.Sequential(conv(), conv("learned"), nn.Conv2d(3, 3, 3))
    expected = 0.0
    for layer in (model[0], model[1]):
        for index, kernel in enumerate(layer.weight):
            beta = (
                kernel.abs().mean() if layer is model[0] else layer.weight_quantiser.beta(layer.weight)[index]
            )
            signs = torch.where(kernel >= 0, 1.0, -1.0)
            expected += ((kernel - beta * signs) ** 2).mean().item()
    assert kernel_loss(model).item() == pytest.approx(expected, rel=1e-12)


def test_reconstruction_error_is_the_squared_norm_of_4_23() -> None:
    layer = conv()
    signs = torch.where(layer.weight >= 0, 1.0, -1.0)
    beta = layer.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
    assert reconstruction_error(layer).item() == pytest.approx(
        ((layer.weight - beta * signs) ** 2).sum().item()
    )


@pytest.mark.parametrize("loss", [kernel_loss, reconstruction_error])
def test_gradient_is_that_of_finite_differences(loss) -> None:
    layer = conv("learned")
    loss(layer).backward()
    for parameter in (layer.weight, layer.weight_quantiser.magnitude):
        flat = parameter.data.view(-1)
        for index in (0, len(flat) // 2, len(flat) - 1):
            old, step = flat[index].item(), 1e-6
            flat[index] = old + step
            above = loss(layer).item()
            flat[index] = old - step
            below = loss(layer).item()
            flat[index] = old
            assert parameter.grad.view(-1)[index].item() == pytest.approx(
                (above - below) / (2 * step), abs=1e-6
            )


def test_real_weights_have_nothing_to_reconstruct() -> None:
    layer = conv()
    set_stage(layer, activations=True, weights=False)
    assert kernel_loss(layer).item() == 0
    assert reconstruction_error(layer).item() == 0


def test_class_means_start_from_their_first_samples_and_run_towards_the_next() -> None:
    """Before its first mean a class's samples count nothing; the loss is a mean over samples and features."""
    loss = ClassMeanLoss(3, rate=0.5)
    features = torch.tensor([[1.0, 3.0], [3.0, 5.0], [10.0, 0.0]]).view(3, 2, 1, 1)
    labels = torch.tensor([0, 0, 2])
    assert loss(features, labels).item() == 0
    loss.follow()
    assert loss.means[0].tolist() == [2.0, 4.0] and loss.means[2].tolist() == [10.0, 0.0]
    assert loss.means[1].isnan().all()
    moved = features + 2
    assert loss(moved, labels).item() == pytest.approx(0.5 * (1 + 1 + 9 + 9 + 4 + 4) / 6)
    loss.follow()
    assert loss.means[0].tolist() == [3.0, 5.0] and loss.means[2].tolist() == [11.0, 1.0]


def test_class_mean_gradient_pulls_to_the_mean_and_is_no_matter_of_the_batch() -> None:
    """(f - fbar) over samples and features; a class without a mean has no gradient, and no NaN either."""
    for copies in (1, 5):
        loss = ClassMeanLoss(2, rate=1.0)
        features = torch.tensor([[2.0], [4.0]] * copies).view(-1, 1, 1, 1)
        labels = torch.zeros(2 * copies, dtype=torch.long)
        loss(features, labels)
        loss.follow()
        features.requires_grad_()
        loss(features, labels).backward()
        assert (features.grad.flatten() * 2 * copies).tolist() == [-1.0, 1.0] * copies
    unseen = torch.ones(1, 1, 1, 1, requires_grad=True)
    loss(unseen, torch.tensor([1])).backward()
    assert unseen.grad.tolist() == [[[[0.0]]]]


def test_class_means_do_not_depend_on_the_parts_of_a_batch() -> None:
    """Two steps of an accumulation, or two processes, give the loss and the means of the whole batch."""
    features, labels = torch.randn(6, 4, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 2, 0, 1])
    whole, steps, here, there = (ClassMeanLoss(3, rate=0.5) for _ in range(4))
    for turn in range(3):
        shifted = features + turn
        expected = whole(shifted, labels).item()
        assert (expected > 0) == (turn > 0)
        whole.follow()
        parts = [slice(0, 3), slice(3, 6)]
        found = [steps(shifted[part], labels[part]).item() for part in parts]
        assert sum(found) / 2 == pytest.approx(expected)
        steps.follow()
        assert torch.allclose(steps.means, whole.means)
        local = [
            process(shifted[part], labels[part]) for process, part in zip((here, there), parts, strict=True)
        ]
        assert sum(value.item() for value in local) / 2 == pytest.approx(expected)
        totals = iter([here.sums + there.sums, here.counts + there.counts])
        here.follow(lambda _, values=totals: next(values))
        assert torch.allclose(here.means, whole.means)
        there.means = here.means
        there.sums.zero_()
        there.counts.zero_()


def test_distillation_is_least_at_the_teacher() -> None:
    teacher = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    p = torch.softmax(teacher, 1)
    entropy = -(p * p.log()).sum().item()
    assert distillation(teacher, teacher).item() == pytest.approx(entropy)
    assert distillation(teacher + torch.tensor([[0.3, 0.0, 0.0]]), teacher).item() > entropy
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    distillation(logits, teacher).backward()
    assert torch.allclose(logits.grad, torch.softmax(logits.detach(), 1) - p)
