"""The base of all settings: an unknown key or a wrong type is an error, and values never change once read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys.

    ``strict`` is on, so ``"3"`` is no integer and ``1`` no boolean; an integer where a float is meant is fine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
