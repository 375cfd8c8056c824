"""From a traced graph to operations: signs and convolutions, norms folded into thresholds and epilogues."""

from __future__ import annotations

import torch
from torch import nn

from downstream.packed.layers import EPILOGUE, Operation, Window, convolution, fill_of, relu_of
from downstream.packed.steps import Step, find_thresholds, step_of, to_floats
from downstream.packed.trace import Graph, Node, pool_settings
from search.binary import QuantConv2d
from search.errors import InputError
from search.operations import Zero

Operations = list[Operation]


def lower(graph: Graph) -> tuple[Operations, dict[str, Operation]]:
    """The operations of a network in order, and its named outputs.

    Raises:
        InputError: Where a layer has no packed form, or where the network has no 1-bit layer at all.
    """
    operations, outputs = _Builder(graph).build()
    if not any(made.kind in ("binary", "depthwise") for made in operations):
        raise InputError(
            "the network has no layer with 1-bit weights and inputs, so there is nothing to pack"
        )
    for rewrite in (_through_cats, _merge_channels, _fold_thresholds, _fold_signs, _fold_epilogues):
        operations, outputs = rewrite(operations, outputs)
    return operations, outputs


class _Builder:
    """Makes the operations of a graph one for one, except that a 1-bit convolution's sign is one of its own."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.operations: Operations = []
        self.made: dict[int, Operation] = {}
        self.signs: dict[tuple[int, str, int, int], Operation] = {}

    def build(self) -> tuple[Operations, dict[str, Operation]]:
        for node in self.graph.nodes:
            self.made[id(node)] = self._operation(node)
        return self.operations, {name: self.made[id(node)] for name, node in self.graph.outputs.items()}

    def _add(self, operation: Operation) -> Operation:
        self.operations.append(operation)
        return operation

    def _operation(self, node: Node) -> Operation:
        inputs = [self.made[id(source)] for source in node.inputs]
        if node.kind == "layer":
            return self._layer(self.graph.layers[node.name], node, inputs[0])
        if node.kind in ("max", "average"):
            return self._pool(node, inputs[0], node.settings)
        if node.kind == "relu":
            return self._channel(node.name, inputs[0], Step("slope", (torch.zeros(inputs[0].channels),)))
        if node.kind == "add":
            return self._add(Operation("channel", node.name, inputs[:1], node.shape[0], addend=inputs[1]))
        return self._add(Operation(node.kind, node.name, inputs, node.shape[0]))

    def _channel(self, name: str, source: Operation, step: Step) -> Operation:
        return self._add(Operation("channel", name, [source], source.channels, steps=[step]))

    def _pool(self, node: Node, source: Operation, settings: tuple[int, ...]) -> Operation:
        if min(settings) < 0:
            raise InputError("only square pools can be packed", where=node.name)
        kernel, stride, padding, ceil = settings
        return self._add(
            Operation(
                node.kind if node.kind != "layer" else _pool_kind(self.graph.layers[node.name]),
                node.name,
                [source],
                node.shape[0],
                window=Window(kernel, stride, padding, ceil=ceil),
            )
        )

    def _layer(self, layer: nn.Module, node: Node, source: Operation) -> Operation:
        if isinstance(layer, nn.Conv2d):
            return self._convolution(layer, node.name, source)
        if isinstance(layer, nn.Linear):
            weights = layer.weight.detach().cpu().float().numpy()[:, :, None, None]
            arrays = {} if layer.bias is None else {"before": to_floats(layer.bias)}
            return self._add(
                Operation("real", node.name, [source], layer.out_features, weights=weights, arrays=arrays)
            )
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            counted = isinstance(layer, nn.AvgPool2d) and layer.count_include_pad and layer.padding != 0
            if counted or (isinstance(layer, nn.MaxPool2d) and layer.dilation != 1):
                raise InputError(
                    "a pool that counts its padding or is dilated cannot be packed", where=node.name
                )
            settings = pool_settings(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
            return self._pool(node, source, settings)
        if isinstance(layer, Zero):
            window = Window(stride=layer.stride)
            return self._add(Operation("zero", node.name, [source], node.shape[0], window=window))
        return self._channel(node.name, source, step_of(layer, node.name, source.channels))

    def _convolution(self, layer: nn.Conv2d, name: str, source: Operation) -> Operation:
        made = convolution(layer, name, source)
        if made.kind == "real":
            if relu_of(layer):
                made.inputs = [self._channel(name, source, Step("slope", (torch.zeros(source.channels),)))]
            return self._add(made)
        assert isinstance(layer, QuantConv2d)
        storage = "planes" if made.kind == "depthwise" else "words"
        parts = 1 if made.kind == "depthwise" else layer.groups
        made.inputs = [self._sign(source, storage, parts, fill_of(layer), made.window.padding)]
        return self._add(made)

    def _sign(self, source: Operation, storage: str, parts: int, fill: int, padding: int) -> Operation:
        """The sign of a value, once for all that read it so; a shift moves behind it, onto fewer bytes."""
        if source.kind == "shift" and storage == "words" and padding == 0:
            inner = self._sign(source.inputs[0], storage, parts, fill, 0)
            key = (id(source), storage, parts, fill)
            if key not in self.signs:
                shifted = Operation("shift", source.name, [inner], source.channels, "words", parts)
                self.signs[key] = self._add(shifted)
            return self.signs[key]
        key = (id(source), storage, parts, fill)
        if key not in self.signs:
            made = Operation("sign", source.name, [source], source.channels, parts=parts, fill=fill)
            made.storage = storage  # type: ignore[assignment]
            self.signs[key] = self._add(made)
        self.signs[key].border = max(self.signs[key].border, padding)
        return self.signs[key]


def _pool_kind(layer: nn.Module) -> str:
    return "max" if isinstance(layer, nn.MaxPool2d) else "average"


def _users(operations: Operations, outputs: dict[str, Operation]) -> dict[int, list[Operation | None]]:
    """Who reads each value; None stands for an output."""
    users: dict[int, list[Operation | None]] = {id(made): [] for made in operations}
    for made in operations:
        for source in made.sources:
            users[id(source)].append(made)
    for made in outputs.values():
        users[id(made)].append(None)
    return users


Rewritten = tuple[Operations, dict[str, Operation]]


def _replace(operations: Operations, outputs: dict[str, Operation], by: dict[int, Operation]) -> Rewritten:
    """Read ``by[old]`` instead of ``old`` everywhere, and drop what nobody reads."""

    def now(made: Operation) -> Operation:
        while id(made) in by:
            made = by[id(made)]
        return made

    for made in operations:
        made.inputs = [now(source) for source in made.inputs]
        made.addend = None if made.addend is None else now(made.addend)
    outputs = {name: now(made) for name, made in outputs.items()}
    needed = {id(made) for made in outputs.values()}
    for made in reversed(operations):
        if id(made) in needed:
            needed.update(id(source) for source in made.sources)
    return [made for made in operations if id(made) in needed], outputs


def _through_cats(operations: Operations, outputs: dict[str, Operation]) -> Rewritten:
    """A step after a concatenation becomes one step a part, where it can be folded into what makes the part."""
    users = _users(operations, outputs)
    by: dict[int, Operation] = {}
    result: Operations = []
    for made in operations:
        cat = by.get(id(made.inputs[0]), made.inputs[0]) if made.inputs else made
        alone = bool(made.steps) and len(users[id(made.inputs[0])]) == 1
        if made.kind != "channel" or cat.kind != "cat" or not alone:
            result.append(made)
            continue
        parts, start = [], 0
        for part in cat.inputs:
            steps = [step.part(start, start + part.channels) for step in made.steps]
            parts.append(Operation("channel", made.name, [part], part.channels, steps=steps))
            start += part.channels
        by[id(made)] = Operation("cat", cat.name, list(parts), made.channels)
        result += [*parts, by[id(made)]]
    return _replace(result, outputs, by)


def _merge_channels(operations: Operations, outputs: dict[str, Operation]) -> Rewritten:
    """Steps that follow each other and are read by nobody else become one operation."""
    users = _users(operations, outputs)
    by: dict[int, Operation] = {}
    for made in operations:
        if made.kind != "channel" or made.addend is not None:
            continue
        before = made.inputs[0]
        before = by.get(id(before), before)
        if before.kind == "channel" and before.addend is None and len(users[id(made.inputs[0])]) == 1:
            before.steps += made.steps
            by[id(made)] = before
            users[id(before)] = users[id(made)]
    return _replace(operations, outputs, by)


def _fold_thresholds(operations: Operations, outputs: dict[str, Operation]) -> Rewritten:
    """Norm and sign after a 1-bit convolution become thresholds, where nothing else reads what lies between."""
    users = _users(operations, outputs)
    by: dict[int, Operation] = {}
    for made in operations:
        if made.kind not in ("binary", "depthwise"):
            continue
        steps: list[Step] = []
        last = follower = made
        if len(users[id(made)]) == 1:
            follower = users[id(made)][0] or made
        if follower.kind == "channel" and follower.addend is None:
            steps, last = follower.steps, follower
        signs = [user for user in users[id(last)] if user is not None and user.kind == "sign"]
        if len(signs) != 1 or len(users[id(last)]) != 1:
            continue
        assert made.beta is not None and made.weights is not None
        thresholds = find_thresholds(steps, torch.from_numpy(made.beta), made.largest, made.name)
        if thresholds is None:
            continue
        made.weights[thresholds.flipped] *= -1
        made.threshold, made.beta = thresholds.values, None
        made.storage, made.parts = signs[0].storage, signs[0].parts
        made.border, made.fill = signs[0].border, signs[0].fill
        by[id(signs[0])] = made
    return _replace(operations, outputs, by)


def _fold_signs(operations: Operations, outputs: dict[str, Operation]) -> Rewritten:
    """One norm or shift that only signs read becomes part of them: sign(x * scale + bias)."""
    users = _users(operations, outputs)
    by: dict[int, Operation] = {}
    for made in operations:
        readers = users[id(made)]
        only = all(user is not None and user.kind == "sign" for user in readers)
        if made.kind != "channel" or made.addend is not None or len(made.steps) != 1 or not only:
            continue
        (step,) = made.steps
        if step.kind == "slope":
            continue
        shift = {"scale": to_floats(torch.ones(made.channels)), "bias": to_floats(step.tensors[0])}
        for reader in readers:
            assert reader is not None
            reader.arrays = step.affine() if step.kind == "norm" else shift
        by[id(made)] = made.inputs[0]
    return _replace(operations, outputs, by)


_HAVE_EPILOGUE = ("binary", "depthwise", "real", "max", "average", "channel")


def _position(made: Operation) -> int:
    """The last place of the epilogue that is taken, -1 for none."""
    taken = [place for place, slot in enumerate(EPILOGUE) if slot in made.arrays]
    return max([*taken, 1 if made.addend is not None else -1], default=-1)


def _absorb_step(made: Operation, step: Step) -> bool:
    """Put a step into the epilogue behind what is there already; False where there is no place for it."""
    at = _position(made)
    if step.kind == "norm" and at < 0:
        summed = made.kind in ("binary", "depthwise") and made.beta is not None
        made.arrays |= step.over_sums(made.beta) if summed and made.beta is not None else step.affine()
        made.beta = None if summed else made.beta
    elif step.kind == "bias" and at < 2:
        made.arrays["before"] = to_floats(step.tensors[0])
    elif step.kind == "slope" and at < 3:
        made.arrays["slope"] = to_floats(step.tensors[0])
    elif step.kind == "bias" and at < 4:
        made.arrays["after"] = to_floats(step.tensors[0])
    else:
        return False
    return True


def _fold_epilogues(operations: Operations, outputs: dict[str, Operation]) -> Rewritten:
    """Steps and sums go into the operation that makes their input, where only they read it."""
    users = _users(operations, outputs)
    by: dict[int, Operation] = {}
    order = {id(made): place for place, made in enumerate(operations)}
    result: Operations = []

    def now(made: Operation) -> Operation:
        while id(made) in by:
            made = by[id(made)]
        return made

    def host(source: Operation) -> Operation | None:
        made = now(source)
        free = made.kind in _HAVE_EPILOGUE and made.storage == "map" and len(users[id(source)]) == 1
        return made if free else None

    for made in operations:
        if made.kind != "channel":
            result.append(made)
            continue
        if made.addend is not None:
            first, second = now(made.inputs[0]), now(made.addend)
            pairs = [(first, made.inputs[0], second), (second, made.addend, first)]
            late, source, early = max(pairs, key=lambda pair: order[id(pair[0])])
            if host(source) is late and late is not early and _position(late) < 1:
                late.addend = early
                by[id(made)] = late
            else:
                result.append(made)
            continue
        _place_steps(made, host(made.inputs[0]), now(made.inputs[0]), result, by, order)
    return _replace(result, outputs, by)


def _place_steps(
    made: Operation,
    target: Operation | None,
    source: Operation,
    result: Operations,
    by: dict[int, Operation],
    order: dict[int, int],
) -> None:
    """Steps into ``target``'s epilogue as far as they fit, the others into operations of their own."""
    for step in made.steps:
        if target is None or not _absorb_step(target, step):
            target = Operation("channel", made.name, [source if target is None else target], made.channels)
            order[id(target)] = order[id(made)]
            _absorb_step(target, step)
            result.append(target)
    if target is not None:
        by[id(made)] = target
