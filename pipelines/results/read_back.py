"""Which exported weights were read back, and whether they gave the recorded numbers again."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.results.records import Library, Record

SAME = ("task", "network", "precision", "seed", "weights_hash")
"""Keys of run.json that a retraining and the evaluation of its weights share."""
COMPARED = ("accuracy", "top5", "loss")


def read_back(trainings: Sequence[Record], library: Library) -> str | None:
    """How many of some retrainings were read back by the stage ``evaluate``, and how exactly; None: not one.

    Returns:
        Such as ``2 of 2 exact``, or ``1 of 2, other machine, largest difference: accuracy 0.05 points, loss 0.0021``.
    """
    pairs = [(run, again) for run in trainings if (again := _evaluation_of(run, library)) is not None]
    if not pairs:
        return None
    count = f"{len(pairs)} of {len(trainings)}"
    elsewhere = not all(again.run.get("same_machine", False) for _, again in pairs)
    machine = ["other machine"] if elsewhere else []
    largest = {key: max(_difference(run, again, key) for run, again in pairs) for key in COMPARED}
    if not any(largest.values()):
        return ", ".join([f"{count} exact", *machine])
    words = f"accuracy {100 * largest['accuracy']:.2f} points, loss {largest['loss']:.2g}"
    return ", ".join([count, *machine, f"largest difference: {words}"])


def _evaluation_of(training: Record, library: Library) -> Record | None:
    """The evaluation of a retraining's own weights; records of older code do not say which weights they are."""
    wanted = [training.run.get(key) for key in SAME]
    if wanted[-1] is None:
        return None
    found = (record for record in library.of("evaluate") if [record.run.get(key) for key in SAME] == wanted)
    return next(found, None)


def _difference(training: Record, again: Record, key: str) -> float:
    return abs(float(training.metrics.get(key, 0.0)) - float(again.metrics.get(key, 0.0)))
