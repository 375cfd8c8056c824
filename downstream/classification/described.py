"""What a weight file says of itself: enough to use it without this suite, and to notice that it is used wrongly."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

import search
from search.binary import SignActivation, SignWeight, quant_convs
from search.data import CIFAR10_MEAN, CIFAR10_STD
from search.errors import InputError
from search.image_folder import MEAN, STD

LOGGER = logging.getLogger("cp_nas.weights")
NORMALISATION = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "imagenet": (MEAN, STD)}
"""Mean and standard deviation of the inputs of a task; torchvision's networks take ImageNet's."""
SHOWN = 5


def description(network: nn.Module, task: str, classes: Sequence[str]) -> dict[str, str]:
    """Fields of a weight file's header, as text.

    Args:
        network: As it is exported, its quantisers on or off.
        task: ``cifar10`` or ``imagenet``.
        classes: Names of the classes in the order of the classifier's outputs; none where the data has none.

    Returns:
        ``suite`` (version of the program), and as JSON ``classes``, ``mean``,
        ``std`` (of inputs in [0, 1]) and ``binary_rules``.
    """
    mean, std = NORMALISATION[task]
    return {
        "suite": search.__version__,
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "binary_rules": json.dumps(binary_rules(network)),
    }


def binary_rules(network: nn.Module) -> list[dict[str, Any]]:
    """How convolutions binarise, each rule once: what is applied to input and weights, and what pads the input.

    ``SignActivation`` is sign with sign(0) = +1; ``SignWeight`` is beta sign(w), beta by its ``scale``: the mean of
    ``|w|`` of an output channel, or ``gain * |magnitude|`` with ``weight_quantiser.magnitude`` in the file.
    """
    found = Counter(
        (_shown(conv.input_quantiser), _shown(conv.weight_quantiser), conv.pad_value)
        for _, conv in quant_convs(network)
    )
    return [
        {"convolutions": count, "input": x, "weight": w, "pad_value": pad}
        for (x, w, pad), count in found.items()
    ]


def _shown(quantiser: nn.Module) -> str:
    on = not isinstance(quantiser, SignActivation | SignWeight) or quantiser.enabled
    return repr(quantiser) if on else "off"


def check_classes(header: dict[str, Any], classes: Sequence[str], where: object) -> None:
    """Refuse weights of other classes than the data's; say so where the file or the data has no names.

    Raises:
        InputError: With the first classes that differ.
    """
    named = _names(header.get("classes"), where)
    if not named or not classes:
        LOGGER.warning("%s: does not say its classes: taken in the order of the data's", where)
        return
    if named == list(classes):
        return
    if sorted(named) == sorted(classes):
        raise InputError(
            "has the data's classes in another order",
            where=where,
            mend="its order is in its header, field 'classes'",
        )
    place = next(
        (i for i, pair in enumerate(zip(named, classes, strict=False)) if pair[0] != pair[1]),
        min(len(named), len(classes)),
    )
    ours, theirs = (", ".join(names[place : place + SHOWN]) or "nothing" for names in (list(classes), named))
    raise InputError(
        f"was trained on other classes: from place {place} on {theirs}", where=where, allowed=ours
    )


def _names(text: Any, where: object) -> list[str]:
    if text is None:
        return []
    try:
        names = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError("its header's field 'classes' is no list of names", where=where)
    return names
