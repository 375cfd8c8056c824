"""Run records: the small files a run leaves behind, from which every table is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.provenance import provenance
from search.files import write_csv, write_json
from search.genotype import Genotype

SCHEMA = 1


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
) -> None:
    """Write the record of a finished run into ``folder``.

    Args:
        folder: The run's output folder (see :func:`pipelines.stage.output_folder`).
        run: Identity: stage, key, network, method, precision, form, seed, task, dataset, paper_scale, hashes.
        metrics: Flat numbers.
        params: The sections of params.yaml that decided the run.
        started: ``time.time()`` at its start.
        seeds: All seeds.
        data: Content hashes of the data by name.
        history: One row an epoch or draw.
        cost: The network's cost (see :mod:`search.cost`).
        genotype: The architecture, where there is one.
    """
    write_json(folder / "run.json", {"schema": SCHEMA, **run})
    write_json(folder / "metrics.json", dict(metrics))
    write_json(folder / "params.json", dict(params))
    hashes = provenance(
        seeds=seeds, data=data, architecture_hash=run.get("architecture_hash"), started=started
    )
    write_json(folder / "provenance.json", hashes)
    if history is not None:
        write_csv(folder / "history.csv", history)
    if cost is not None:
        write_json(folder / "cost.json", dict(cost))
    if genotype is not None:
        genotype.save(folder / "genotype.json")


def dataset_of(manifest: Mapping[str, Any], **counts: int) -> dict[str, Any]:
    """The ``dataset`` part of run.json from a prepared data set's manifest, with the numbers of images used."""
    return {
        "name": manifest["name"],
        "stand_in": manifest["stand_in"],
        "note": manifest.get("note", ""),
        "sha256": manifest["sha256"],
        **counts,
    }
