"""mmcv's compiled operators, or torchvision's kernels in their place.

MMDetection imports ``mmcv._ext``, which only a compiled mmcv has. Where it is missing (``mmcv-lite``),
:func:`install` provides the operators that these detectors call - NMS, RoIAlign and the sigmoid focal loss -
on torchvision's kernels, CPU and CUDA, with the same values and gradients. Any other operator stops on its
first call; nothing is silently different. ``python -m downstream.detection.operators --persist`` writes the
same module into the environment, so that MMDetection's own programs find it without our help.

Compiled mmcv has the focal loss for CUDA alone; on the CPU MMDetection computes it in Python, with either mmcv.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from search.errors import InputError
from search.files import write_text

EXTENSION = "mmcv._ext"
AVERAGE_POOLING = 1

_STUB = '''"""mmcv's operators on torchvision's kernels, written by downstream.detection.operators."""

from downstream.detection.operators import KERNELS, missing_operator as __getattr__

globals().update(KERNELS)
'''


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the kept boxes by falling score, int64 (K,).

    Args:
        boxes: x1, y1, x2, y2 in pixels, (N, 4).
        scores: (N,).
        iou_threshold: A box is dropped when its IoU with a kept, higher scoring box is above this.
        offset: 1 counts the last pixel (width = x2 - x1 + 1, the VOC convention), 0 does not.
    """
    _need_torchvision()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, *,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int,
    aligned: bool,
) -> None:  # fmt: skip
    """Write RoIAlign (mean) of ``input`` (N, C, H, W) at ``rois`` (R, 5) into ``output`` (R, C, h, w)."""
    _need_torchvision()
    if pool_mode != AVERAGE_POOLING:
        raise InputError("RoIAlign with max pooling needs compiled mmcv", allowed="pool_mode='avg'")
    output.copy_(
        torch.ops.torchvision.roi_align(
            input, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, *,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int,
    aligned: bool,
) -> None:  # fmt: skip
    """Write the gradient of :func:`roi_align_forward` in its input into ``grad_input`` (N, C, H, W)."""
    _need_torchvision()
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output, rois, spatial_scale, aligned_height, aligned_width, *grad_input.shape,
            sampling_ratio, aligned,
        )
    )  # fmt: skip


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the element-wise focal loss of Lin et al. (2017), equation 5, into ``output`` (N, C).

    Args:
        input: Logits, (N, C).
        target: Class of each row, int64 (N,); C means background.
        weight: One weight a class (C,), taken by the row's class; empty for none.
        output: Filled in place.
        gamma: Focusing exponent.
        alpha: Weight of the positive class.
    """
    positive, scale, p, log_p, log_q = _focal_terms(input, target, weight)
    loss = positive * alpha * (1 - p) ** gamma * log_p + (1 - positive) * (1 - alpha) * p**gamma * log_q
    output.copy_(-scale * loss)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the derivative of :func:`sigmoid_focal_loss_forward` in the logits into ``grad_input`` (N, C)."""
    positive, scale, p, log_p, log_q = _focal_terms(input, target, weight)
    at_one = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p)
    at_zero = -(1 - alpha) * p**gamma * (gamma * (1 - p) * log_q - p)
    grad_input.copy_(scale * (positive * at_one + (1 - positive) * at_zero))


def _focal_terms(
    input: Tensor, target: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor | float, Tensor, Tensor, Tensor]:
    x = input if input.dtype == torch.float64 else input.float()
    classes = x.shape[1]
    positive = F.one_hot(target.long(), classes + 1)[:, :classes].to(x.dtype)
    scale = weight.to(x.dtype)[target.long().clamp(max=classes - 1)][:, None] if weight.numel() else 1.0
    return positive, scale, x.sigmoid(), F.logsigmoid(x), F.logsigmoid(-x)


def _need_torchvision() -> None:
    """Load torchvision, which registers its kernels with torch."""
    import torchvision  # noqa: F401


def missing_operator(name: str) -> Callable[..., Any]:
    """The module's ``__getattr__``: a function that stops when called (mmcv asks for all names at import)."""
    if name.startswith("__"):
        raise AttributeError(name)

    def stop(*_args: object, **_kwargs: object) -> None:
        raise InputError(
            f"mmcv operator '{name}' needs compiled mmcv",
            allowed="without it: nms, roi_align (avg), sigmoid_focal_loss",
        )

    return stop


KERNELS: dict[str, Callable[..., Any]] = {
    "nms": nms,
    "roi_align_forward": roi_align_forward,
    "roi_align_backward": roi_align_backward,
    "sigmoid_focal_loss_forward": sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": sigmoid_focal_loss_backward,
    "get_compiler_version": lambda: "none",
    "get_compiling_cuda_version": lambda: "none",
}


def compiled() -> bool:
    """Whether mmcv brings its own compiled operators."""
    _need_mmcv()
    spec = importlib.util.find_spec(EXTENSION)
    return bool(spec and spec.origin and spec.origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)))


def source() -> str:
    """Where the operators come from, for run records: ``mmcv 2.1.0, compiled`` or ``torchvision 0.28.0``."""
    if compiled():
        import mmcv

        return f"mmcv {mmcv.__version__}, compiled"
    return f"torchvision {importlib.metadata.version('torchvision')}"


def install() -> str:
    """Make ``mmcv.ops`` importable and return :func:`source`; the first call says it on stderr."""
    if EXTENSION not in sys.modules:
        if not compiled():
            import mmcv

            module = types.ModuleType(EXTENSION)
            module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, None)
            vars(module).update(KERNELS, __getattr__=missing_operator)
            sys.modules[EXTENSION] = mmcv._ext = module
        print(f"NMS, RoIAlign, focal loss: {source()}", file=sys.stderr)
    return source()


def persist() -> Path | None:
    """Write the stand-in into mmcv's own folder; None (nothing is written) where mmcv is compiled."""
    if compiled():
        return None
    import mmcv

    path = Path(mmcv.__file__).with_name("_ext.py")
    write_text(path, _STUB)
    return path


def _need_mmcv() -> None:
    if importlib.util.find_spec("mmcv") is None:
        raise InputError("mmcv is not installed", mend="install this project with its extra 'detection'")


def main() -> None:
    """Say which operators are used; with ``--persist``, make MMDetection's own programs use them too."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--persist", action="store_true", help="write the stand-in into mmcv's folder")
    if parser.parse_args().persist and (path := persist()):
        print(f"wrote {path}")
    print(f"NMS, RoIAlign, focal loss: {source()}")


if __name__ == "__main__":
    main()
