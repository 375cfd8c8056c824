"""The simulated network as ONNX, for others' tools: float32 operators in which signs are comparisons.

ONNX has no copysign, so signs are written as ``where(x >= 0, 1, -1)``, which has the same values. Weights of 1-bit
convolutions are stored as they multiply, beta o sign(w).
"""

from __future__ import annotations

import copy
import types
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from search.binary import Pair, QuantConv2d, Shared, SignActivation, value_of
from search.errors import InputError
from search.files import atomic
from search.kernels.native import switched_off

INSTALL = "pip install 'cp-nas-bench[onnx]'"


def _comparison(_: SignActivation, x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def _convolve(conv: QuantConv2d, source: Tensor | Shared) -> Tensor:
    """The convolution by plain operators, its weights as they multiply."""
    x: Tensor = conv.input_quantiser(value_of(source))
    padding: Pair = conv.padding  # type: ignore[assignment]
    if conv.pad_value:
        around = 2 * (padding[1],) + 2 * (padding[0],)
        x, padding = nn.functional.pad(x, around, value=conv.pad_value), (0, 0)
    return nn.functional.conv2d(x, conv.weight, None, conv.stride, padding, conv.dilation, conv.groups)


def exportable(network: nn.Module) -> nn.Module:
    """A copy of the network of operators that ONNX has; it computes the same up to the rounding of sums."""
    twin = copy.deepcopy(network).cpu().eval()
    for module in twin.modules():
        if isinstance(module, QuantConv2d):
            with torch.no_grad():
                module.weight.copy_(module.weight_quantiser(module.weight))
            module.forward = types.MethodType(_convolve, module)  # type: ignore[method-assign]
            module.register_forward_hook(_listen)
        elif isinstance(module, SignActivation) and module.enabled:
            module.forward = types.MethodType(_comparison, module)  # type: ignore[method-assign]
        elif isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(_listen)
    return twin


def _listen(*_: object) -> None:
    """No kernel computes a layer that is listened to (search.kernels.modules)."""


def export_onnx(network: nn.Module, path: str | Path, size: tuple[int, int], opset: int = 18) -> None:
    """Write the simulated network as ONNX: ``images`` (N, 3, H, W) to ``logits`` (N, classes), any N.

    Args:
        network: A network of :func:`downstream.models.build`.
        path: The file, written atomically.
        size: Height and width of the images.
        opset: Version of ONNX's operators.

    Raises:
        InputError: If the packages of the extra ``onnx`` are not installed.
    """
    try:
        import onnxscript  # noqa: F401 - what torch.onnx writes with
    except ImportError:
        raise InputError("ONNX export needs the packages onnx and onnxscript", mend=INSTALL) from None
    images = torch.zeros(2, 3, *size)
    with atomic(path) as temporary, warnings.catch_warnings(), switched_off():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            exportable(network),
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("images", min=1)}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(temporary), external_data=False)
