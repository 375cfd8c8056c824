"""What may stand in a record: names with a strict pattern, plain text, finite numbers, values that can be written."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator

PART = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}"
Name = Annotated[str, Field(pattern=rf"^{PART}$")]
"""Of a network, method, variant, task or campaign: safe as a file name and in a page."""
Key = Annotated[str, Field(pattern=rf"^{PART}(/{PART}){{0,3}}$", max_length=200)]
"""A run's place below the folder of its stage."""
DatasetName = Annotated[str, Field(pattern=r"^[^\W_][\w .+-]{0,79}( -> [^\W_][\w .+-]{0,79})?$")]
"""Of a data set, or of two: trained on one, tested on the other."""
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SIZES = (2000, 20)
"""Longest text, and deepest nesting, of any value in a record."""


def plain(value: Any, depth: int = 0) -> Any:
    """A JSON value that can be written and shown: finite numbers, lines of text, not too deep; else ValueError."""
    if depth > SIZES[1]:
        raise ValueError(f"at most {SIZES[1]} levels of nesting")
    if isinstance(value, str):
        if len(value) > SIZES[0] or not re.fullmatch(r"[^\x00-\x1f\x7f\ud800-\udfff]*", value):
            raise ValueError(f"at most {SIZES[0]} printable characters")
    elif isinstance(value, dict):
        for key, inner in value.items():
            plain(key, depth + 1)
            plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            plain(inner, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a whole number below 2^63")
    return value


def amount(value: Any) -> float:
    """A finite number, not below 0; a whole one stays one."""
    if type(value) not in (int, float) or not 0 <= value < 2**63:
        raise ValueError("a finite number, not below 0")
    return value  # type: ignore[no-any-return]


Plain = Annotated[dict[str, Any], AfterValidator(plain)]
Text = Annotated[str, AfterValidator(plain)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, PlainValidator(amount)]
