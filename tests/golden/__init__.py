"""Numbers from independent sources that our results must equal; every entry names its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def golden(name: str) -> Any:
    """One entry of ``fixtures.json``."""
    return json.loads((FOLDER / "fixtures.json").read_text(encoding="utf-8"))[name]
