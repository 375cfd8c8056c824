"""Operations as the tables and tensors that the C code runs and the file holds (csrc/packed.h, docs/packed.md)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from downstream.packed.layers import Operation
from downstream.packed.lower import lower
from downstream.packed.trace import trace

CODES = {
    "sign": 1,
    "shift": 2,
    "binary": 3,
    "depthwise": 4,
    "real": 5,
    "channel": 6,
    "max": 7,
    "average": 8,
    "mean": 9,
    "copy": 10,
    "zero": 11,
}
STORAGES = {"map": 0, "words": 1, "planes": 2}
COLUMNS = (
    "code",
    "output",
    "input",
    "addend",
    "kernel",
    "stride",
    "padding",
    "dilation",
    "groups",
    "ceil",
    "offset",
    "weight",
    "beta",
    "scale",
    "bias",
    "before",
    "slope",
    "after",
    "threshold",
    "centre",
)
"""Columns of the table of operations."""
VALUE_COLUMNS = ("kind", "channels", "parts", "border", "fill", "parent", "start", "reserved")
"""Columns of the table of values; value 0 is the image."""
WORD = 64


@dataclass
class Program:
    """A packed network.

    Attributes:
        operations: (n, 20), int32; see :data:`COLUMNS`.
        values: (m, 8), int32; see :data:`VALUE_COLUMNS`.
        tensors: What the columns from ``weight`` on index: a name and an array.
        outputs: Value of each named output.
        layers: Name and kind of each operation, and how its sums are computed.
        metadata: Further text: architecture, its hash, where the weights come from.
    """

    operations: NDArray[np.int32]
    values: NDArray[np.int32]
    tensors: list[tuple[str, NDArray[Any]]]
    outputs: dict[str, int]
    layers: list[dict[str, str]]
    metadata: dict[str, str] = field(default_factory=dict)


def pack_bits(signs: NDArray[Any]) -> NDArray[np.uint64]:
    """Words of 64 bits along the last axis: bit i of word w is 1 where entry 64 w + i is positive, else 0."""
    bits = np.packbits(signs > 0, axis=-1, bitorder="little")
    words = -(-signs.shape[-1] // WORD)
    padded = np.zeros((*signs.shape[:-1], 8 * words), dtype=np.uint8)
    padded[..., : bits.shape[-1]] = bits
    return padded.view("<u8")


def packed_weights(made: Operation) -> NDArray[Any]:
    """The weights as the file holds them.

    ``binary``: (C', k k, words of a group's channels); ``depthwise``: (C, words of k k taps); ``real`` with 1-bit
    weights: (C', words of C / groups x k k); real weights: (C', C / groups, k, k) floats.
    """
    weights = made.weights
    assert weights is not None
    outputs, inputs, kernel, _ = weights.shape
    if made.kind == "binary":
        return pack_bits(weights.reshape(outputs, inputs, kernel * kernel).transpose(0, 2, 1))
    if weights.dtype == np.int8:
        return pack_bits(weights.reshape(outputs, -1))
    return np.ascontiguousarray(weights, dtype=np.float32)


def arithmetic(made: Operation) -> str:
    """How an operation computes, in words for the file's list of layers."""
    if made.kind == "binary":
        return "W1A1: XOR and popcount"
    if made.kind == "depthwise":
        return "W1A1: sums of +-1 bytes"
    if made.kind == "real" and made.weights is not None and made.weights.dtype == np.int8:
        return "W1A32: float sums, weights expanded to +-1"
    return "float32"


class _Assembler:
    """Numbers values and tensors, and writes the rows of both tables."""

    def __init__(self, operations: list[Operation], outputs: dict[str, Operation]) -> None:
        self.rows: list[dict[str, int]] = []
        self.values: list[list[int]] = []
        self.tensors: list[tuple[str, NDArray[Any]]] = []
        self.layers: list[dict[str, str]] = []
        self.index: dict[int, int] = {}
        self.parents = _parents(operations)
        self.starts: dict[int, int] = {}
        for made in operations:
            self._value(made)
        for made in operations:
            if made.kind == "cat":
                self._cat(made)
            elif made.kind != "input":
                self._operation(made)

    def _value(self, made: Operation) -> None:
        self.index[id(made)] = len(self.values)
        row = [STORAGES[made.storage], made.channels, made.parts, made.border, made.fill, -1, 0, 0]
        self.values.append(row)
        if made.kind == "cat":
            start = 0
            for part in made.inputs:
                if self.parents.get(id(part)) is made:
                    self.values[self.index[id(part)]][5:7] = [self.index[id(made)], start]
                start += part.channels

    def _row(self, code: str, made: Operation, source: Operation, **columns: int) -> None:
        row = dict.fromkeys(COLUMNS, 0) | dict.fromkeys(COLUMNS[11:], -1)
        window = made.window
        row |= {
            "code": CODES[code],
            "output": self.index[id(made)],
            "input": self.index[id(source)],
            "addend": -1 if made.addend is None else self.index[id(made.addend)],
            "kernel": window.kernel,
            "stride": window.stride,
            "padding": window.padding,
            "dilation": window.dilation,
            "groups": window.groups,
            "ceil": window.ceil,
        }
        self.rows.append(row | columns)
        self.layers.append({"name": made.name, "kind": code, "arithmetic": arithmetic(made)})

    def _tensor(self, made: Operation, role: str, array: NDArray[Any]) -> int:
        index = len(self.tensors)
        self.tensors.append((f"{index:05d}.{made.name or 'network'}.{role}", np.ascontiguousarray(array)))
        return index

    def _operation(self, made: Operation) -> None:
        columns: dict[str, int] = {}
        if made.weights is not None:
            columns["weight"] = self._tensor(made, "weight", packed_weights(made))
            columns["offset"] = int(made.kind == "real" and made.weights.dtype == np.int8)
        arrays = {"beta": made.beta, "threshold": made.threshold, **made.arrays}
        for role, array in arrays.items():
            if array is not None:
                columns[role] = self._tensor(made, role, array)
        self._row(made.kind, made, made.inputs[0], **columns)

    def _cat(self, made: Operation) -> None:
        """Parts that could not be computed in place are copied."""
        start = 0
        for part in made.inputs:
            if self.parents.get(id(part)) is not made:
                self._row("copy", made, part, offset=start)
            start += part.channels


def _parents(operations: list[Operation]) -> dict[int, Operation]:
    """Values that are computed in the place that they have in a concatenation."""
    uses = Counter(id(part) for made in operations if made.kind == "cat" for part in made.inputs)
    return {
        id(part): made
        for made in operations
        if made.kind == "cat"
        for part in made.inputs
        if uses[id(part)] == 1 and part.kind not in ("input", "cat") and part.storage == "map"
    }


def compile_network(network: nn.Module, size: tuple[int, int]) -> Program:
    """The program of a network.

    Args:
        network: A network of :func:`downstream.models.build` with its weights.
        size: Height and width that it is traced with; the program runs at others too.

    Raises:
        InputError: If a layer cannot be packed; the message names it.
    """
    operations, outputs = lower(trace(network, size))
    made = _Assembler(operations, outputs)
    return Program(
        operations=np.array([[row[name] for name in COLUMNS] for row in made.rows], dtype=np.int32),
        values=np.array(made.values, dtype=np.int32),
        tensors=made.tensors,
        outputs={name: made.index[id(value)] for name, value in outputs.items()},
        layers=made.layers,
    )
