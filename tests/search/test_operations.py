"""Operations on a map that others read too."""

from __future__ import annotations

import pytest
import torch

from search.binary import Shared, value_of
from search.genotype import OPERATIONS
from search.operations import Project, build_operation
from search.style import FORMS, OperationStyle

STYLES = [(form, binary) for form in FORMS for binary in (False, True) if not (form == "darts" and binary)]


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("form", "binary"), STYLES)
def test_every_operation_makes_the_same_of_a_shared_map(
    form: str, binary: bool, stride: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    style = OperationStyle(form, binary=binary)  # type: ignore[arg-type]
    x = torch.randn(2, 4, *size)
    operations = [build_operation(name, 4, stride, style) for name in OPERATIONS]
    results = []
    for one_for_all in (False, True):
        leaf = x.clone().requires_grad_()
        state = Shared(leaf)
        outputs = [value_of(operation(state if one_for_all else leaf)) for operation in operations]
        torch.stack(outputs).square().sum().backward()
        results.append((torch.stack(outputs).detach(), leaf.grad))
    (separate, separate_gradient), (shared, shared_gradient) = results
    assert torch.equal(separate, shared)
    torch.testing.assert_close(shared_gradient, separate_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("plain_layers")
def test_an_input_that_was_quantised_ahead_is_not_quantised_again() -> None:
    project = Project(4, 6, OperationStyle("paper"))
    state = Shared(torch.randn(1, 4, 5, 5))
    project.quantise(state)
    calls: list[object] = []
    project.conv.input_quantiser.register_forward_hook(lambda *call: calls.append(call))
    ahead = project(state)
    assert not calls
    torch.testing.assert_close(ahead, project(state.value))
    assert len(calls) == 1


def test_a_norm_before_the_convolution_leaves_nothing_to_quantise_ahead() -> None:
    """In the released form a preprocessing convolution reads the normalised map, which no other one reads."""
    project = Project(4, 6, OperationStyle("released"))
    calls: list[object] = []
    project.conv.input_quantiser.register_forward_hook(lambda *call: calls.append(call))
    project.quantise(Shared(torch.randn(1, 4, 5, 5)))
    assert not calls
