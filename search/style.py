"""How operations are built: form, precision, and every choice that the papers leave open (method.md, section 2).

:class:`BlockSettings` is what profiles set, :class:`OperationStyle` what modules are built from, and
:meth:`OperationStyle.describe` what a weight file's header says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from pydantic import Field
from torch import nn

from search.binary import (
    Estimator,
    QuantConv2d,
    Quantiser,
    Real,
    Scale,
    SignActivation,
    SignWeight,
    WeightGradient,
)
from search.errors import InputError
from search.settings import Settings

Form = Literal["paper", "released", "darts"]
FORMS: tuple[str, ...] = get_args(Form)
ParentBlock = Literal["original", "twin"]
Depthwise = Literal["w1a1", "w1a32", "w32a32"]
PoolNorm = Literal["own", "always", "supernet", "never"]
PadValue = Literal[-1, 0, 1]

ABSENT: dict[str, Any] = {
    "parent_block": "twin",  # every Parent of `paper` had a ReLU for each sign
    "depthwise": None,
    "node_norm": False,
    "estimator_window": 1.0,
    "weight_gradient": "unscaled",
}
"""What a description without the key stands for: the way networks were built before there was one."""


class BlockSettings(Settings):
    """The choices of a block that the papers leave open or that an ablation varies; each is a [choice] but where noted.

    Attributes:
        parent_block: Real-valued block of the form ``paper``. ``original`` [derived from fig. 4.8]: ReLU,
            depthwise, 1x1, batch norm, nothing between the two convolutions, and no norm behind the pools of
            a derived network. ``twin``: the Child's block with a ReLU for every sign.
        depthwise: Weights and inputs of a 1-bit depthwise convolution of the form ``paper``: ``w1a1`` as
            printed; ``w1a32`` leaves out the sign before it, ``w32a32`` the weights' too. null: the form's own
            (``w1a1``; ``w1a32`` in ``released``).
        pool_norm: Batch norm behind a pool: ``own`` is the form's rule (``darts`` and an ``original`` Parent:
            in supernets only, everything else: always), the others hold for every form.
        node_norm: A batch norm behind the sum of each node, which brings its values back into the window.
        estimator_window: Half the width of the interval where signs of activations pass gradients.
        scale: Scale of 1-bit weights; null: the form's own (``mean_abs``; ``learned`` in ``released``).
        weight_gradient: ``unscaled`` or ``scaled`` (4.34); see :class:`search.binary.SignWeight`.
        pad_value: What 1-bit convolutions pad with.
        learned_gain: Constant of the form ``released``'s learned scale (0.02 there); that of ``paper`` has none.
    """

    parent_block: ParentBlock
    depthwise: Depthwise | None
    pool_norm: PoolNorm
    node_norm: bool
    estimator_window: float = Field(gt=0, le=100)
    scale: Scale | None
    weight_gradient: WeightGradient
    pad_value: PadValue
    learned_gain: float = Field(gt=0, le=100)

    def style(self, form: Form, binary: bool, estimator: Estimator) -> OperationStyle:
        """The style of a network with these choices."""
        return OperationStyle(form=form, binary=binary, estimator=estimator, **self.model_dump())

    def untrained(self, form: Form, binary: bool) -> OperationStyle:
        """The style of a transfer network that starts without weights: Bi-Real's estimator."""
        return self.style(form, binary, "bireal")


NO_BLOCK = "block is null without pretrained weights: set it as in retrain.imagenet.network"


def forbid_two_blocks(pretrained: bool, block: BlockSettings | None) -> None:
    """Transfer's blocks are those of the weights it starts from, or its own: never both.

    Raises:
        ValueError: For a validator to pass on.
    """
    if pretrained and block is not None:
        raise ValueError("block is set, but pretrained weights bring theirs: set block to null")


def require_block(pretrained: bool, block: BlockSettings | None, network: str) -> None:
    """A genotype's network without pretrained weights needs a block; hand-made networks have their own.

    Raises:
        InputError: If there is none.
    """
    if not pretrained and block is None:
        raise InputError(NO_BLOCK, where=network)


@dataclass(frozen=True)
class OperationStyle:
    """How operations are built.

    Attributes:
        form: ``paper``, ``released`` or ``darts``.
        binary: Child (1-bit) if true, else its real-valued Parent. ``darts`` is always real.
        affine: Whether batch norms have weights (those of a supernet: a setting of the search).
        running_statistics: Whether batch norms evaluate with running statistics; those of a supernet mix the
            architectures that came before, so that it may use each batch's own instead.
        estimator: Gradient estimator of the activations; see :func:`search.binary.estimate`.
        parent_block, depthwise, pool_norm, node_norm, estimator_window, scale, weight_gradient, pad_value,
            learned_gain: As in :class:`BlockSettings`.
    """

    form: Form = "paper"
    binary: bool = True
    affine: bool = True
    running_statistics: bool = True
    pool_norm: PoolNorm = "own"
    estimator: Estimator = "bireal"
    scale: Scale | None = None
    pad_value: float = 0.0
    learned_gain: float = 0.02
    parent_block: ParentBlock = "original"
    depthwise: Depthwise | None = None
    node_norm: bool = False
    estimator_window: float = 1.0
    weight_gradient: WeightGradient = "unscaled"

    def __post_init__(self) -> None:
        choices = {"form": Form, "parent_block": ParentBlock, "pool_norm": PoolNorm}
        for name, allowed in ((name, get_args(kind)) for name, kind in choices.items()):
            if getattr(self, name) not in allowed:
                raise InputError(f"{getattr(self, name)!r} is no {name}", allowed=", ".join(allowed))
        if self.form == "darts" and self.binary:
            raise InputError(
                "the form 'darts' is real-valued", mend="use 'paper' or 'released' for 1-bit networks"
            )
        if self.depthwise is not None and self.form != "paper":
            raise InputError(
                f"the form {self.form!r} has its own depthwise convolutions",
                where=f"depthwise: {self.depthwise}",
                mend="set depthwise to null, or the form to 'paper'",
            )

    @property
    def original(self) -> bool:
        """Whether real-valued blocks of the form ``paper`` are fig. 4.8's original branch."""
        return self.form == "paper" and not self.binary and self.parent_block == "original"

    @property
    def published(self) -> OperationStyle:
        """This style for a derived network: without norms behind pools where only supernets have them (DARTS)."""
        own = "supernet" if self.form == "darts" or self.original else "always"
        rule = own if self.pool_norm == "own" else self.pool_norm
        return replace(self, pool_norm="never" if rule == "supernet" else rule)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """JSON values for a header; what has its value of :data:`ABSENT`, or decides nothing, is left out.

        So a network has the description, and the hash, that it had before a later choice got its name.
        """
        found = asdict(self) | {"pool_norm": True if self.pool_norm == "own" else self.pool_norm}
        if not (self.form == "paper" and not self.binary):
            del found["parent_block"]
        return {key: value for key, value in found.items() if key not in ABSENT or value != ABSENT[key]}

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> OperationStyle:
        """The style of a description; keys that it lacks have the values of :data:`ABSENT`.

        Raises:
            InputError: Unknown key or value.
        """
        values = ABSENT | dict(description)
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise InputError(f"unknown key {unknown[0]!r} in a style", allowed=", ".join(known))
        norm = values.get("pool_norm", True)
        values["pool_norm"] = {True: "own", False: "never"}[norm] if isinstance(norm, bool) else norm
        return cls(**values)

    def activation(self) -> Quantiser:
        """What a 1-bit convolution does to its input: sign; in the Parent of ``paper`` and in ``darts`` a ReLU."""
        if self.binary:
            return SignActivation(self.estimator, self.estimator_window)
        return Real(relu=self.form != "released")

    def weight(self, channels: int) -> Quantiser:
        """Quantiser of a convolution's weights; in the Parent none."""
        if not self.binary:
            return Real()
        if self.form == "released":
            gain, gradient = self.learned_gain, self.weight_gradient
            return _initialised(SignWeight(self.scale or "learned", channels, "identity", gain, gradient))
        return SignWeight(self.scale or "mean_abs", channels, gradient=self.weight_gradient)

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        activate: bool,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        real_weights: bool = False,
    ) -> QuantConv2d:
        """A convolution with this style's quantisers, "same" at stride 1; ``activate`` quantises its input."""
        module = QuantConv2d(
            inputs,
            outputs,
            kernel,
            stride,
            dilation * (kernel // 2),
            dilation,
            groups,
            input_quantiser=self.activation() if activate else Real(),
            weight_quantiser=Real() if real_weights else self.weight(outputs),
            pad_value=self.pad_value if self.binary and activate else 0.0,
        )
        if self.form == "released" and self.binary:
            nn.init.normal_(module.weight)
        return module

    def depthwise_conv(self, channels: int, kernel: int, stride: int, dilation: int) -> QuantConv2d:
        """The depthwise convolution of the forms ``paper`` and ``darts``, with the sign or ReLU before it, if any."""
        return self.conv(
            channels,
            channels,
            kernel,
            activate=self.depthwise in (None, "w1a1") or self.original,
            stride=stride,
            dilation=dilation,
            groups=channels,
            real_weights=self.depthwise == "w32a32",
        )

    def norm(self, channels: int, eps: float = 1e-5) -> nn.BatchNorm2d:
        """Batch norm over ``channels``."""
        return nn.BatchNorm2d(
            channels, eps=eps, affine=self.affine, track_running_stats=self.running_statistics
        )

    def node(self, channels: int) -> nn.Module:
        """What stands behind a node's sum: batch norm with ``node_norm``, else nothing."""
        return self.norm(channels) if self.node_norm else nn.Identity()


def _initialised(quantiser: SignWeight) -> SignWeight:
    if quantiser.magnitude is not None:
        nn.init.normal_(quantiser.magnitude)
    return quantiser
