"""Every found method against random search, and every variant against its method's base form, after retraining."""

from __future__ import annotations

import statistics
from typing import Any

from pipelines.results.columns import COMPARISON, DATA_KINDS
from pipelines.results.level import level
from pipelines.results.records import Library, Record
from pipelines.results.rows import own_column
from pipelines.results.statistics import Estimate, Rules, holm, paired_difference

REFERENCE = "random"
Row = dict[str, Any]


def comparison_rows(library: Library, rules: Rules) -> list[Row]:
    """Rows of comparison.csv: a block for every campaign, data set, precision and recipe with a found network."""
    blocks: dict[tuple[str, ...], dict[str, list[Record]]] = {}
    for record in library.of("retrain"):
        if record.search_seed is not None:
            families = blocks.setdefault(_block(record), {})
            families.setdefault(record.family, []).append(record)
    return [row for _, families in sorted(blocks.items()) for row in _rows(families, library, rules)]


def _block(record: Record) -> tuple[str, ...]:
    data = record.dataset
    what = (record.profile, data["name"], data.get("sha256"), record.run["precision"], record.form)
    return tuple(str(part) for part in (*what, record.settings))


def by_search(records: list[Record]) -> dict[int, float]:
    """Accuracy in percent by search seed, the mean over the seeds of the training."""
    found: dict[int, list[float]] = {}
    for record in records:
        if record.search_seed is not None:
            found.setdefault(record.search_seed, []).append(100 * float(record.metrics["accuracy"]))
    return {seed: statistics.fmean(values) for seed, values in sorted(found.items())}


def _rows(families: dict[str, list[Record]], library: Library, rules: Rules) -> list[Row]:
    values = {name: by_search(records) for name, records in families.items()}
    rows, estimates = [], []
    for name, records in families.items():
        against = _reference(records[0], families)
        other = values[against] if against else {}
        pairs = sorted(values[name].keys() & other.keys())
        first, second = ([side[seed] for seed in pairs] for side in (values[name], other))
        estimate = paired_difference(first, second, 0.0, rules) if pairs else None
        estimates.append(estimate)
        label = families[against][0].label if against else None
        rows.append(_row(records, values[name], label, estimate, library))
    known = [estimate.p for estimate in estimates if estimate is not None and estimate.p is not None]
    corrected = iter(holm(known))
    for row, estimate in zip(rows, estimates, strict=True):
        if estimate is not None and estimate.p is not None:
            row["p_holm"] = round(next(corrected), 5)
    return sorted(rows, key=lambda row: (-row[own_column(row, "accuracy")], row["name"]))


def _reference(record: Record, families: dict[str, list[Record]]) -> str | None:
    """What a row is compared with: a variant with its method's base form, anything else with random search."""
    wanted = [REFERENCE] if record.is_base else [str(record.method), REFERENCE]
    return next((name for name in wanted if name in families and name != record.family), None)


def _row(
    records: list[Record],
    values: dict[int, float],
    against: str | None,
    estimate: Estimate | None,
    library: Library,
) -> Row:
    first, every = records[0], list(values.values())
    numbers = {
        "accuracy": statistics.fmean(every),
        "accuracy_std": statistics.stdev(every) if len(every) > 1 else None,
        "difference": estimate.value if estimate else None,
        "difference_low": estimate.low if estimate else None,
        "difference_high": estimate.high if estimate else None,
    }
    prefix = DATA_KINDS[first.data_kind][0]
    row: Row = dict.fromkeys(COMPARISON)
    return (
        row
        | {
            "level": level(records, library),
            "name": first.label,
            "variant": first.variant,
            "precision": first.run["precision"],
            "form": first.form,
            "profile": first.profile,
            "dataset": first.dataset["name"],
            "data_kind": first.data_kind,
            "train_images": first.dataset.get("train_images"),
            "searches": len(every),
            "runs": len(records),
            "values": " ".join(f"{value:.2f}" for value in every),
            "against": against,
            "pairs": estimate.n if estimate else None,
            "p": round(estimate.p, 5) if estimate and estimate.p is not None else None,
            "settings": first.settings,
        }
        | {f"{prefix}{key}": None if value is None else round(value, 3) for key, value in numbers.items()}
    )
