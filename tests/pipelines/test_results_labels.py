"""Labels in figures stand by their own marker, and training curves show where a recipe's stage ends."""

from __future__ import annotations

import itertools
from pathlib import Path

from pipelines.results.checks import read_run
from pipelines.results.columns import TABLES
from pipelines.results.curve_figures import Change, stage_changes
from pipelines.results.labels import Box, place
from pipelines.results.literature import cited
from search.files import write_csv, write_json
from tests.pipelines.results_records import rng, write_retrain

FRAME = Box(0, 0, 600, 300)
SIZE = 8.0


def overlapping(boxes: list[Box]) -> list[tuple[Box, Box]]:
    """Pairs of rectangles that share an area."""
    return [(one, other) for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]


def test_a_lone_label_touches_its_marker() -> None:
    """To the right; to the left where the frame ends; without a line."""
    found = place([(100, 100), (580, 200)], ["first", "second"], FRAME, SIZE)
    assert not found[0].led and not found[1].led
    assert 0 < found[0].box.x0 - 100 < SIZE and 0 < 580 - found[1].box.x1 < SIZE


def test_a_moved_label_has_a_line_and_no_label_is_nearer_to_another_marker() -> None:
    """A crowd: no two labels overlap, none covers a marker, one without a line is nearest to its own."""
    draw = rng("labels")
    markers = [(float(x), float(y)) for x, y in draw.uniform((250, 100), (350, 180), (11, 2))]
    names = [f"network-{number}" for number in range(11)]
    found = place(markers, names, FRAME, SIZE)
    assert len(found) == 11 and any(label.led for label in found.values())
    assert overlapping([label.box for label in found.values()]) == []
    for at, label in found.items():
        assert all(label.box.distance(*marker) > 0 for marker in markers)
        if not label.led:
            distances = [label.box.distance(*marker) for marker in markers]
            assert min(distances) == distances[at] and sorted(distances)[1] > distances[at] + SIZE / 8


def test_no_marker_stays_without_its_name() -> None:
    """Where there is no room for all, labels cover each other rather than being left out."""
    found = place(
        [(20.0 + 3 * at, 20.0) for at in range(12)],
        ["a long name" + str(at) for at in range(12)],
        Box(0, 0, 120, 40),
        SIZE,
    )
    assert sorted(found) == list(range(12)) and overlapping([label.box for label in found.values()])


def test_points_of_one_name_on_each_other_have_one_label() -> None:
    """Two sources print nearly the same numbers of a network."""
    found = place([(100, 100), (101, 100), (300, 100)], ["net", "net", "net"], FRAME, SIZE)
    assert sorted(found) == [0, 2]


def test_every_network_of_the_cited_figure_is_labelled(tmp_path: Path) -> None:
    """Each name is in the picture, as often as its points lie apart; the axis says whose convention the OPs follow."""
    from pipelines.figures import draw_all
    from pipelines.results.level import CITED
    from pipelines.results.records import Library
    from pipelines.results.rows import table_rows

    (spec,) = [spec for spec in TABLES if spec.name == "classification"]
    rows = table_rows(spec, Library(()))
    draw_all(Library(()), rows, tmp_path)
    text = (tmp_path / "cited-ops.svg").read_text()
    shown = [
        row["name"] for row in rows if row["level"] == CITED and row["paper_ops_M"] and row["paper_accuracy"]
    ]
    assert len(shown) > 10 and cited("classification")
    assert [name for name in shown if f">{name}</text>" not in text] == []
    assert "OPs in millions, each source's own convention" in text


def test_stages_of_a_recipe_are_marked(tmp_path: Path) -> None:
    """Between the last epoch with real weights and the first with 1-bit ones; a recipe of one stage has no mark."""
    write_retrain(tmp_path, "cp_nas", 0, "1bit", "imagenet")
    folder = tmp_path / "retrain/imagenet/cp_nas-s0-1bit-s0"
    stages = [{"binary_weights": weights, "binary_activations": True} for weights in (False, True)]
    write_json(folder / "params.json", {"retrain": {"imagenet": {"stages": stages}}})
    write_csv(
        folder / "history.csv", [{"epoch": epoch, "stage": epoch // 3, "accuracy": 0.1} for epoch in range(5)]
    )
    assert stage_changes(read_run(folder, campaign="one")) == [Change(3.5, "32/1", "1/1")]
    write_csv(folder / "history.csv", [{"epoch": epoch, "stage": 0, "accuracy": 0.1} for epoch in range(5)])
    assert stage_changes(read_run(folder, campaign="one")) == []


def test_the_mark_is_drawn_and_explained(tmp_path: Path) -> None:
    """The figure holds the widths of both stages, its caption says what the line is."""
    from pipelines.results.curve_figures import training
    from pipelines.results.curves import KINDS, curves
    from pipelines.results.records import Library

    write_retrain(tmp_path / "one", "cp_nas", 0, "1bit", "imagenet")
    folder = tmp_path / "one/retrain/imagenet/cp_nas-s0-1bit-s0"
    stages = [{"binary_weights": weights, "binary_activations": True} for weights in (False, True)]
    write_json(folder / "params.json", {"retrain": {"imagenet": {"stages": stages}}})
    write_csv(
        folder / "history.csv",
        [{"epoch": epoch, "stage": epoch // 2, "train_loss": 2.0, "accuracy": 0.1} for epoch in range(4)],
    )
    (kind,) = [kind for kind in KINDS if kind.name == "classification"]
    library = Library((read_run(folder, campaign="one"),))
    (picture,) = training(kind, curves(kind, library), tmp_path)
    text = (tmp_path / f"{picture.name}.svg").read_text()
    assert ">W/A 32/1</text>" in text and ">W/A 1/1</text>" in text
    assert "next recipe stage" in picture.caption and "W/A" in picture.caption
