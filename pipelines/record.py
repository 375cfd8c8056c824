"""Writing run records: the small files a run leaves behind, from which every table is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.provenance import provenance
from pipelines.results.reading import SCHEMA, check, variant_of
from pipelines.results.run import Run
from search.files import write_csv, write_json
from search.genotype import Genotype


def write_record(
    folder: Path,
    *,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    params: Mapping[str, Any],
    started: float,
    seeds: Sequence[int],
    data: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]] | None = None,
    cost: Mapping[str, Any] | None = None,
    genotype: Genotype | None = None,
) -> Run:
    """Write the record of a finished run into ``folder``, as a :class:`pipelines.results.run.Run` of its stage.

    Args:
        folder: The run's output folder (see :func:`pipelines.stage.output_folder`).
        run: What it is: the fields of :class:`Run` that stand in run.json.
        metrics: Numbers by the names in :mod:`pipelines.results.metrics`.
        params: The sections of params.yaml that decided the run.
        started: ``time.time()`` at its start.
        seeds: All seeds.
        data: Content hashes of the data by name.
        history: One row an epoch or draw.
        cost: The network's cost (see :mod:`search.cost`).
        genotype: The architecture, where there is one.

    Raises:
        InputError: If it is no record that ``collect`` would take; nothing is written then.
    """
    about = provenance(
        seeds=seeds, data=data, architecture_hash=run.get("architecture_hash"), started=started
    )
    value = {
        "schema": SCHEMA,
        "variant": variant_of(run),
        **run,
        "metrics": dict(metrics),
        "params": dict(params),
    }
    written = check(value | {"provenance": about, "cost": dict(cost) if cost else None}, folder)
    for name, content in written.files().items():
        write_json(folder / f"{name}.json", content)
    if history is not None:
        write_csv(folder / "history.csv", history)
    if genotype is not None:
        genotype.save(folder / "genotype.json")
    return written


def dataset_of(manifest: Mapping[str, Any], **counts: int) -> dict[str, Any]:
    """The ``dataset`` part of run.json from a prepared data set's manifest, with the numbers of images used."""
    return {
        "name": manifest["name"],
        "stand_in": manifest["stand_in"],
        "note": manifest.get("note", ""),
        "sha256": manifest["sha256"],
        **counts,
    }
