"""One door to every network: found and published genotypes, and the hand-made 1-bit networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from search.backbone import BackboneModule, Precision
from search.binary import set_stage
from search.errors import InputError, nearest
from search.genotype import Genotype, published, published_names
from search.network import Network, NetworkConfig, Stem
from search.style import Form, OperationStyle
from search.weights import load_weights, read_header


def build(
    network: str | Genotype,
    *,
    precision: Precision = "1bit",
    form: Form = "paper",
    channels: int | None = None,
    cells: int | None = None,
    classes: int = 10,
    stem: Stem = "cifar",
    style: OperationStyle | None = None,
    auxiliary: bool = False,
    drop_path: float = 0.0,
    checkpointing: bool = False,
    last_stride: int = 2,
) -> BackboneModule:
    """A network by genotype or name.

    Args:
        network: A genotype, a published genotype's name, or a hand-made network's name.
        precision: ``1bit`` for the Child, ``real`` for its full-precision twin.
        form: Form of a genotype's operations; hand-made networks have their own.
        channels: C of a genotype (needed there); stem width of a hand-made network (its own by default).
        cells: Number of cells of a genotype (needed there).
        classes: Outputs of the classifier.
        stem: ``cifar`` or ``imagenet``.
        style: Further settings of a genotype's operations; its form and precision are overridden.
        auxiliary, drop_path, checkpointing: As in :class:`search.network.Network`; hand-made networks have
            neither of them.
        last_stride: 1 keeps the resolution of the last stage.

    Returns:
        A module that is a :class:`search.backbone.Backbone`.
    """
    from downstream import handmade

    if precision not in ("1bit", "real"):
        raise InputError(f"{precision!r} is no precision", allowed="1bit, real")
    if isinstance(network, str) and network in handmade.NAMES:
        return handmade.build(
            network,
            precision=precision,
            classes=classes,
            stem=stem,
            channels=channels,
            last_stride=last_stride,
        )
    genotype = network if isinstance(network, Genotype) else _published(network)
    if channels is None or cells is None:
        raise InputError(
            f"the size of {genotype.name} is missing", allowed="channels and cells, such as 36 and 20"
        )
    config = NetworkConfig(
        channels=channels,
        cells=cells,
        classes=classes,
        stem=stem,
        style=replace(style or OperationStyle(), form=form, binary=precision == "1bit"),
        auxiliary=auxiliary,
        last_stride=last_stride,
    )
    return Network(genotype, config, drop_path=drop_path, checkpointing=checkpointing)


def network_names() -> tuple[str, ...]:
    """Names of all published and hand-made networks."""
    from downstream import handmade

    return (*published_names(), *handmade.NAMES)


def _published(name: str) -> Genotype:
    if name.lower() in (known.lower() for known in published_names()):
        return published(name)
    hint = nearest(name, network_names())
    raise InputError(
        f"unknown network {name!r}" + (f", did you mean {hint!r}?" if hint else ""),
        allowed=f"{', '.join(network_names())}, or a genotype file",
    )


def rebuild(architecture: dict[str, Any]) -> BackboneModule:
    """The network that an ``architecture`` description (from a weight file's header) stands for."""
    from downstream import handmade

    if architecture.get("kind") == "handmade":
        return handmade.rebuild(architecture)
    return Network(Genotype.from_dict(architecture["genotype"]), NetworkConfig.read(architecture["config"]))


def binarised(activations: bool, weights: bool) -> str:
    """What a weight file's header says of the stage of binarisation that its weights were trained in."""
    return (
        " ".join(name for name, on in (("activations", activations), ("weights", weights)) if on) or "nothing"
    )


def load_network(
    path: str | Path, network: BackboneModule | None = None
) -> tuple[BackboneModule, dict[str, Any]]:
    """The network of one of the suite's weight files with its weights, and the file's header.

    It is binarised as it was when it was exported: a two-stage recipe that was cut after its first stage gives
    a network of 1-bit activations and real weights.

    Args:
        path: The file.
        network: The network that it must be of and that gets the weights; None to build it from the header.

    Raises:
        InputError: If the file is not one of the suite's, is of another network than ``network``, or if its
            content does not fit its own header.
    """
    header = read_header(path)
    if network is None:
        try:
            network = rebuild(header["architecture"])
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"is of an architecture that this version does not know ({type(error).__name__}: {error})",
                where=path,
            ) from None
    load_weights(path, network)
    parts = str(header.get("binarised", "activations weights")).split()
    set_stage(network, activations="activations" in parts, weights="weights" in parts)
    return network, header
