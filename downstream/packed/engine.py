"""Running a packed network: ``packed = pack(network); packed(images)``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downstream.packed.native import library
from downstream.packed.program import Program, compile_network
from search.errors import InputError

MESSAGE_BYTES = 200
TRACED_SIZES = {"cifar": (32, 32), "imagenet": (224, 224)}
Size = tuple[int, int]


def pack(network: nn.Module, size: Size | None = None) -> Packed:
    """Pack a trained network.

    Args:
        network: A network of :func:`downstream.models.build` with its weights, on any device; left as it is.
        size: Height and width to read it at; by default its stem's usual size. It runs at any other too.

    Raises:
        InputError: If a layer cannot be packed; the message names it and says why.
    """
    from search.weights import hash_state

    architecture: dict[str, Any] = network.architecture  # type: ignore[assignment]
    stem = architecture.get("stem") or architecture.get("config", {}).get("stem", "cifar")
    program = compile_network(network, size or TRACED_SIZES[stem])
    program.metadata["weights_sha256"] = hash_state(network)
    return Packed(program, architecture, str(network.architecture_hash))


class Packed:
    """A packed network; called with images (N, 3, H, W) it gives logits (N, classes).

    One image is computed at a time, in buffers that all layers share and that are laid out once for each size;
    nothing is allocated in between. Several threads share a batch's images.

    Args:
        program: Tables and tensors.
        architecture: The network's description, as its weight file holds it.
        architecture_hash: Its hash.
        variant: Instruction set, by default the best of this CPU.
    """

    def __init__(
        self,
        program: Program,
        architecture: dict[str, Any],
        architecture_hash: str,
        variant: str | None = None,
    ) -> None:
        self.program = program
        self.architecture = architecture
        self.architecture_hash = architecture_hash
        self.native = library(variant)
        self.threads = 1
        self._plans: dict[tuple[Size, tuple[str, ...], int], _Plan] = {}

    @property
    def variant(self) -> str:
        """The instruction set in use."""
        return self.native.packed_variant().decode()

    @property
    def feature_channels(self) -> dict[int, int]:
        """Channels of the maps of :meth:`forward_features`, by stride."""
        channels = self.program.values[:, 1]
        return {
            int(name.removeprefix("stride")): int(channels[value])
            for name, value in self.program.outputs.items()
            if name.startswith("stride")
        }

    @property
    def num_features(self) -> int:
        """Length of the vector of :meth:`embed`."""
        return int(self.program.values[self.program.outputs["embedding"], 1])

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        return self.outputs(images, ["logits"])[0].flatten(1)

    def embed(self, images: Tensor) -> Tensor:
        """The pooled vector before the classifier, (N, num_features)."""
        return self.outputs(images, ["embedding"])[0].flatten(1)

    def forward_features(self, images: Tensor) -> dict[int, Tensor]:
        """The last map of every stride, as the simulated network gives them."""
        strides = list(self.feature_channels)
        return dict(zip(strides, self.outputs(images, [f"stride{s}" for s in strides]), strict=True))

    def outputs(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Named outputs, (N, C, H', W') each."""
        array = self._checked(images)
        threads = max(1, min(self.threads, len(array)))
        plans = [self.plan(array.shape[2:], names, thread) for thread in range(threads)]
        results = [np.empty((len(array), *shape), dtype=np.float32) for shape in plans[0].shapes]
        bounds = [len(array) * i // threads for i in range(threads + 1)]

        def work(i: int) -> None:
            part = slice(bounds[i], bounds[i + 1])
            plans[i].run(array[part], [result[part] for result in results])

        if threads == 1:
            work(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, range(threads)))
        return [torch.from_numpy(result) for result in results]

    def plan(self, size: Sequence[int], names: Sequence[str], thread: int = 0) -> _Plan:
        """The buffers for a size; made once."""
        key = ((int(size[0]), int(size[1])), tuple(names), thread)
        if key not in self._plans:
            self._plans[key] = _Plan(self.native, self.program, *key[:2])
        return self._plans[key]

    def _checked(self, images: Tensor) -> NDArray[np.float32]:
        channels = int(self.program.values[0, 1])
        if images.dim() != 4 or images.shape[1] != channels:
            raise InputError(f"images of shape {tuple(images.shape)}", allowed=f"(N, {channels}, H, W)")
        return np.ascontiguousarray(images.detach().cpu().float().numpy())


class _Plan:
    """The C plan of one size, one set of outputs and one thread."""

    def __init__(self, native: ctypes.CDLL, program: Program, size: Size, names: tuple[str, ...]) -> None:
        self.native = native
        self.program = program  # keeps the tensors alive that the plan points into
        unknown = [name for name in names if name not in program.outputs]
        if unknown:
            raise InputError(f"no output {unknown[0]!r}", allowed=", ".join(program.outputs))
        wanted = np.array([program.outputs[name] for name in names], dtype=np.int32)
        pointers = (ctypes.c_void_p * len(program.tensors))(
            *(array.ctypes.data for _, array in program.tensors)
        )
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        self.handle = native.packed_prepare(
            program.operations.ctypes.data,
            len(program.operations),
            program.values.ctypes.data,
            len(program.values),
            pointers,
            wanted.ctypes.data,
            len(wanted),
            *size,
            message,
        )
        if not self.handle:
            raise InputError(message.value.decode(), where=f"images of {size[0]} x {size[1]}")
        self.shapes = [self._shape(int(value)) for value in wanted]

    def _shape(self, value: int) -> tuple[int, ...]:
        shape = np.zeros(3, dtype=np.int32)
        self.native.packed_shape(self.handle, value, shape.ctypes.data)
        return tuple(shape.tolist())

    @property
    def bytes(self) -> int:
        """Memory of the plan: buffers, prepared weights and tables."""
        return int(self.native.packed_bytes(self.handle))

    def run(self, images: NDArray[np.float32], results: Sequence[NDArray[np.float32]]) -> None:
        """Run a batch; ``results`` are contiguous."""
        pointers = (ctypes.c_void_p * len(results))(*(result.ctypes.data for result in results))
        self.native.packed_run(self.handle, images.ctypes.data, len(images), pointers)

    def profile(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        """Seconds of each operation on one image."""
        seconds = np.zeros(len(self.program.operations))
        self.native.packed_profile(self.handle, image.ctypes.data, seconds.ctypes.data)
        return seconds

    def repeat(self, operation: int, times: int) -> None:
        """Run one operation again and again, on whatever its buffers hold (benchmarks)."""
        self.native.packed_repeat(self.handle, operation, times)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.native.packed_free(self.handle)
