"""BNAS (Chen et al., AAAI 2020): CP-NAS's loop on the Child's accuracy alone, with channel sampling.

Not the BNAS of Kim et al. (ECCV 2020), a different method of the same name.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from search.settings import Epochs, Settings
from search.strategies.base import Context
from search.strategies.cp_nas import CpNas, CpNasSettings


class BnasSettings(Settings):
    """Settings of BNAS (Chen).

    Attributes:
        rounds: T, how often every remaining operation is drawn before one is dropped.
        partial: Operations see 1 / partial of the channels.
    """

    rounds: Epochs
    partial: int = Field(ge=1, le=8192)


class Bnas(CpNas):
    """Child accuracy as the indicator (beta_P = 0, no Parent), operations on a part of the channels."""

    name: ClassVar[str] = "bnas"

    def __init__(self, context: Context, settings: BnasSettings) -> None:
        super().__init__(
            context,
            CpNasSettings(
                beta_p=0.0,
                rounds=settings.rounds,
                parent=False,
                share_latent_weights=False,
                partial=settings.partial,
            ),
        )
