"""Networks that the chain passes on: ``runs/networks/<name>/network.json`` and its genotype."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.errors import InputError
from search.files import read_json, write_json
from search.genotype import Genotype
from search.settings import NAME

FOLDER = Path("runs/networks")


@dataclass(frozen=True)
class Entry:
    """A network of the chain.

    Attributes:
        name: Its name in keys and tables, such as ``cp_nas-s0``.
        method: The search method, or None.
        seed: The search's seed, or None.
        kind: ``genotype`` (found here), ``published`` or ``handmade``.
        network: What :func:`downstream.models.build` takes.
        genotype_hash: Content hash of the genotype, or None.
    """

    name: str
    method: str | None
    seed: int | None
    kind: Literal["genotype", "published", "handmade"]
    network: str | Genotype
    genotype_hash: str | None

    @property
    def genotype(self) -> Genotype | None:
        """The genotype; None for a hand-made network."""
        return self.network if isinstance(self.network, Genotype) else None


def save_entry(folder: Path, entry: Entry) -> None:
    """Write an entry; a genotype goes to ``genotype.json`` beside it."""
    value: dict[str, Any] = {
        "schema": 1,
        **{key: getattr(entry, key) for key in ("name", "method", "seed", "kind")},
    }
    if isinstance(entry.network, Genotype):
        entry.network.save(folder / "genotype.json")
        value["network"] = "genotype.json"
    else:
        value["network"] = entry.network
    write_json(folder / "network.json", {**value, "genotype_hash": entry.genotype_hash})


def load_entry(name: str, root: Path = FOLDER) -> Entry:
    """Read an entry by name.

    Raises:
        InputError: If it is missing, or its genotype is not the one it was written with.
    """
    folder = root / name
    if not re.fullmatch(NAME, name):
        raise InputError(f"{name[:80]!r} names no network", allowed="letters, digits, _ and -")
    if not (folder / "network.json").exists():
        known = sorted(path.parent.name for path in root.glob("*/network.json"))
        raise InputError(
            f"no network {name!r} in {root}", allowed=", ".join(known) or "run: dvc repro derive"
        )
    value = read_json(folder / "network.json")
    network: str | Genotype = value["network"]
    if network == "genotype.json":
        network = Genotype.load(folder / value["network"])
        if network.hash != value["genotype_hash"]:
            raise InputError(
                f"is genotype {network.hash[:12]}, network.json says {value['genotype_hash'][:12]}",
                where=folder / "genotype.json",
                mend="run derive again",
            )
    return Entry(
        value["name"], value["method"], value["seed"], value["kind"], network, value["genotype_hash"]
    )


def resolve(text: str) -> str | Genotype:
    """A genotype file's content, or a published or hand-made network's name as it is."""
    if text.endswith(".json") or "/" in text or Path(text).is_file():
        return Genotype.load(text)
    return text
