"""Teachers for distillation: a trained network of ours or a torchvision ResNet, on the inputs it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchvision import models as torchvision_models

from downstream.classification.described import NORMALISATION, check_classes
from downstream.classification.states import read_state, refuse_foreign
from downstream.models import load_network
from search.errors import InputError
from search.files import atomic, sha256_file, sha256_json
from search.training import reduce_sum
from search.weights import has_architecture, is_safetensors

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
"""torchvision's residual networks; no two of them have tensors of the same names and shapes."""


class PlainBatches(Protocol):
    """Images in their own order: what ``plain()`` of the data classes gives."""

    batch_size: int

    def __len__(self) -> int: ...  # noqa: D105

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's slices of all batches; where it has no image of the last one, that one is missing."""
        ...

    def indices(self, epoch: int) -> Iterator[Tensor]:
        """Which images these are."""
        ...


class Teacher(nn.Module):
    """A frozen network in evaluation mode, given images that are normalised for another task.

    Args:
        network: Gives logits.
        trained: Task whose normalisation ``network`` was trained with.
        task: Task whose normalisation the inputs have.
    """

    def __init__(self, network: nn.Module, trained: str, task: str) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        (mean, std), (own_mean, own_std) = (
            (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in NORMALISATION[name])
            for name in (task, trained)
        )
        self.same = trained == task
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (std / own_std).float())
        self.register_buffer("shift", ((mean - own_mean) / own_std).float())
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes); which images of the set they are makes no difference."""
        logits: Tensor = self.network(x if self.same else x * self.scale + self.shift)
        return logits


class FixedTeacher(nn.Module):
    """A teacher that has answered already: logits of the unaugmented images, looked up by their place in the set.

    Args:
        logits: Of all images, (N, classes); may be a memory map.
    """

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """The logits (B, classes) of the images at ``indices``; of ``x`` only device and type are used."""
        return torch.from_numpy(np.asarray(self.logits[indices.numpy()])).to(x.device, x.dtype)


def load_teacher(path: str | Path, task: str, classes: int, names: Sequence[str] = ()) -> Teacher:
    """A teacher from a weight file; see :class:`downstream.classification.settings.LossSettings`.

    Args:
        path: One of this suite's weight files, or the state of a torchvision ResNet.
        task: ``cifar10`` or ``imagenet``: how the images are normalised.
        classes: The student's classes; the teacher must have as many, in the same order.
        names: Their names, where the data has some; a file that says its classes must have the same.

    Raises:
        InputError: If the file is neither, or has other classes.
    """
    header: dict[str, Any] = {}
    refuse_foreign(path)
    if is_safetensors(path) and has_architecture(path):
        network, header = load_network(path)
        # a file without a task was not written by a training: its inputs are those of this one
        trained, found = str(header.get("task", task)), int(network.classifier.out_features)  # type: ignore[union-attr, arg-type]
        if trained not in NORMALISATION:
            raise InputError(f"was trained on {trained!r}", where=path, allowed=", ".join(NORMALISATION))
    else:
        network, trained = torchvision_resnet(read_state(path), path), "imagenet"
        found = network.fc.out_features
    if found != classes:
        raise InputError(f"has {found} classes", where=path, allowed=f"{classes}, as the data has")
    check_classes(header, names, path)
    return Teacher(network, trained, task)


def torchvision_resnet(state: dict[str, Tensor], where: object) -> torchvision_models.ResNet:
    """The torchvision ResNet that a state belongs to, told by names and shapes, with these weights."""
    shapes = _shapes(state)
    if "conv1.weight" in state and "fc.weight" not in state:
        raise InputError(
            "has no classifier (fc.weight, fc.bias)", where=where, mend="give the whole network's state"
        )
    classes = state["fc.bias"].numel() if "fc.bias" in state else 1000
    for name in RESNETS:
        with torch.device("meta"):
            empty: torchvision_models.ResNet = getattr(torchvision_models, name)(num_classes=classes)
        if _shapes(empty.state_dict()) == shapes:
            network = empty.to_empty(device="cpu")
            # files from before 2018 do not count the batches; nothing here reads the count
            counts = {
                key: torch.zeros((), dtype=torch.long)
                for key in empty.state_dict()
                if key.endswith("num_batches_tracked")
            }
            network.load_state_dict(counts | state)
            return network
    raise InputError(
        "its tensors are those of no network that is known here",
        where=where,
        allowed=f"weight files of this suite; states of torchvision's {', '.join(RESNETS)}",
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}


def fix_teacher(
    fabric: Fabric,
    teacher: Teacher,
    batches: PlainBatches,
    shape: tuple[int, int],
    identity: dict[str, Any],
    root: Path,
) -> FixedTeacher:
    """The teacher's logits of all unaugmented images, from a file of an earlier run or computed now.

    Args:
        fabric: All processes ask the teacher about their slices, the first one writes, all read.
        teacher: On the device.
        batches: The training images without augmentation, in their order.
        shape: How many images and classes there are.
        identity: All that decides the logits (see :func:`identity_of`); another one is another file.
        root: The folder of these files, outside every stage's outputs.
    """
    path = root / f"{sha256_json(identity)[:24]}.npy"
    missing = torch.tensor(float(fabric.is_global_zero and not _usable(path, shape)), device=fabric.device)
    if reduce_sum(fabric, missing) > 0:
        _ask(fabric, teacher, batches, shape, path)
    fabric.barrier()
    return FixedTeacher(np.load(path, mmap_mode="r", allow_pickle=False))


def identity_of(path: str | Path, data: str, fabric: Fabric, **settings: Any) -> dict[str, Any]:
    """What decides a teacher's logits: its file, the images' hash, how they are cropped, and the arithmetic."""
    return {
        "teacher": sha256_file(path),
        "data": data,
        "precision": str(fabric.strategy.precision.precision),
        "device": fabric.device.type,
        **settings,
    }


def _usable(path: Path, shape: tuple[int, int]) -> bool:
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).shape == shape)
    except (OSError, ValueError, EOFError):
        return False


def _ask(fabric: Fabric, teacher: Teacher, batches: PlainBatches, shape: tuple[int, int], path: Path) -> None:
    """Write the logits (images, classes) as float32, atomically; every batch is put together by a sum."""
    images, classes = shape
    mine = zip(batches.epoch(0), batches.indices(0), strict=True)
    with atomic(path) if fabric.is_global_zero else nullcontext() as temporary:
        logits: np.memmap | None = None
        if temporary is not None:
            logits = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        # every process takes part in the sum of every batch, also where it has no image of it
        for first in range(0, len(batches) * batches.batch_size, batches.batch_size):
            last = min(first + batches.batch_size, images)
            whole = torch.zeros(last - first, classes, dtype=torch.float32, device=fabric.device)
            for (x, _), chosen in islice(mine, 1):
                with fabric.autocast():
                    whole[(chosen - first).to(whole.device)] = teacher(x).float()
            whole = reduce_sum(fabric, whole).cpu()
            if logits is not None:
                logits[first:last] = whole.numpy()
        if logits is not None:
            logits.flush()
