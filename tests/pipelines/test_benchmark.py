"""The tabular benchmark on a space of four architectures: trained, stopped, gone on with, read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import benchmark
from search import space as spaces
from search.benchmark import Benchmark
from search.benchmark.names import genotype_of
from search.benchmark.plan import Journal, drawn_order
from search.benchmark.recipe import Recipe, load_recipe, shrink
from search.benchmark.table import FOLDER
from search.data import Images, load_cifar10
from search.errors import InputError
from search.files import read_csv, write_json
from search.genotype import published
from search.space import Space

TINY = Space("tiny", ("max_pool_3x3", "sep_conv_3x3"), nodes=1, reduction=False, keep="all")
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "space": "tiny",
    "size": 16,
    "channels": 2,
    "cells": 3,
    "stem": "cifar",
    "style": {"form": "paper"},
    "train_images": 20,
    "validation_images": 20,
    "test_images": 10,
    "split_seed": 0,
    "epochs": 2,
    "batch_size": 10,
    "learning_rate": 0.004,
    "final_learning_rate": 0.0,
    "augmentation": {"crop_padding": 2, "flip": True, "cutout": 0},
    "seeds": 2,
    "best": 1,
    "drawn": 1,
    "draw_seed": 0,
}
ALL = 2 * 4 + 2 * 2
"""Four architectures in two precisions with seed 0, two of them with seed 1 too."""


class Here(Executor):
    """Runs everything at once, in this process."""

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **keywords))
        return future


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty noisy pictures of ten classes in CIFAR-10's prepared form."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 20)):
        labels = np.arange(count) % 10
        noise = generator.integers(0, 60, (count, 32, 32, 3))
        np.save(folder / f"{part}_images.npy", (noise + labels[:, None, None, None] * 19).astype(np.uint8))
        np.save(folder / f"{part}_labels.npy", labels.astype(np.uint8))
    write_json(folder / "manifest.json", {"sha256": "0" * 64})
    return folder


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(spaces.SPACES, "tiny", TINY)
    monkeypatch.setattr(benchmark, "RECIPES", tmp_path)
    write_json(tmp_path / "tiny.yaml", RECIPE)
    yield
    benchmark._loaded.clear()


def _run(folder: Path, data: Path, **options: Any) -> list[dict[str, str]]:
    benchmark.train_missing("tiny", folder, data, 1, pool=Here(), **options)
    rows = read_csv(folder / "runs.csv")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_architecture_is_trained_in_both_precisions(tmp_path: Path, data: Path) -> None:
    rows = _run(tmp_path / "table", data)
    assert len(rows) == ALL
    table = Benchmark.load(tmp_path / "table")
    assert table.complete
    entry = table["max|sep3"]
    assert entry.child.seed(0) != entry.parent.seed(0)
    assert 0 < entry.cost["child_ops_strict"] < entry.cost["parent_ops_strict"]
    further = [text for text, found in table.items() if len(found.child.runs) == 2]
    assert len(further) == 2
    assert all(len(table[text].child.seed(1).epochs) == RECIPE["epochs"] for text in further)
    best = max(table.values(), key=lambda found: found.child.seed(0).validation)
    assert len(best.child.runs) == 2
    assert table.query(genotype_of((0, 1), TINY)) is entry
    assert sorted(table.rank(found) for found in table.values()) == [1, 2, 3, 4]
    assert entry.indicator(0.5) == pytest.approx(
        0.5 * (entry.child.seed(0).validation + entry.parent.seed(0).validation)
    )


def test_a_stopped_run_goes_on_to_the_same_table(tmp_path: Path, data: Path) -> None:
    whole = _run(tmp_path / "whole", data)
    part = tmp_path / "part"
    assert len(_run(part, data, limit=3)) == 3
    with (part / "runs.csv").open("a") as stream:
        stream.write("max|sep3,chi")  # kill -9 while a line was written
    assert len(_run(part, data, limit=6)) == 9
    assert _run(part, data) == whole
    assert _run(part, data) == whole


def test_another_recipe_does_not_go_on_with_a_table(tmp_path: Path, data: Path) -> None:
    _run(tmp_path / "table", data, limit=1)
    write_json(tmp_path / "tiny.yaml", RECIPE | {"epochs": 3})
    with pytest.raises(InputError, match="made with another recipe"):
        _run(tmp_path / "table", data)


def test_a_table_whose_rows_come_out_differently_is_not_gone_on_with(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "table"
    rows = _run(folder, data, limit=2)
    text = (folder / "runs.csv").read_text()
    (folder / "runs.csv").write_text(text.replace(rows[0]["loss"], "1.25"))
    with pytest.raises(InputError, match=r"trained again, has loss .* not 1\.25"):
        _run(folder, data)


def test_the_order_is_drawn_so_that_a_part_is_a_sample(tmp_path: Path) -> None:
    recipe = load_recipe(Path(benchmark.__file__).parent / "benchmarks/small.yaml")
    order = drawn_order(recipe)
    assert sorted(order) == list(recipe.searched.choices())
    for edge in range(5):
        counts = [sum(choices[edge] == k for choices in order[:200]) for k in range(4)]
        assert min(counts) > 30


def test_processes_give_the_same_rows(tmp_path: Path, data: Path) -> None:
    """Through real workers the table is that of one process: each training is a function of its job alone."""
    here = _run(tmp_path / "here", data, only=["sep3|sep3"], limit=2)
    jobs = benchmark.jobs(load_recipe(tmp_path / "tiny.yaml"), {}, ["sep3|sep3"])
    again = [benchmark._train("tiny", str(data), job) for job in reversed(jobs)]
    assert [row["loss"] for row in here] == [repr(run.loss) for run in reversed(again)]


def test_pixels_shrink_by_integers() -> None:
    import torch

    pixels = torch.tensor([[0, 1, 255, 255], [1, 0, 255, 254]], dtype=torch.uint8).expand(1, 3, 2, 4)
    assert shrink(Images(pixels, torch.zeros(1), 10), 2).pixels[0, 0].tolist() == [[1, 255]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 17}, "size"),
        ({"space": "papr"}, "no search space 'papr'"),
        ({"epochs": 0}, "epochs"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_json(tmp_path / "tiny.yaml", RECIPE | change)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(tmp_path / "tiny.yaml")
    assert "\n" not in str(caught.value)


def test_an_unknown_field_of_the_style_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="style"):
        Recipe(**RECIPE | {"style": {"shape": "x"}}).config(True, 10)


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        benchmark.recipe_path("tinny")
    with pytest.raises(InputError, match="no benchmark 'papr'"):
        Benchmark.load("papr")
    _run(tmp_path / "table", data, only=["max|sep3"], limit=2)
    table = Benchmark.load(tmp_path / "table")
    with pytest.raises(InputError, match="the nearest is 'max|sep3'"):
        table["max|sep4"]
    with pytest.raises(InputError, match="was not trained"):
        table["max|max"]
    with pytest.raises(InputError, match="other edges"):
        table.query(published("DDPNAS_MCN_2"))


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from search.benchmark import Benchmark; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_shipped_recipes_are_valid() -> None:
    for path in (Path(benchmark.__file__).parent / "benchmarks").glob("*.yaml"):
        recipe = load_recipe(path)
        assert recipe.name == path.stem
        recipe.config(True, 10)
        recipe.config(False, 10)


SHIPPED = sorted(path.parent for path in FOLDER.glob("*/card.json"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_table_loads_in_a_twentieth_of_a_second(folder: Path) -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        Benchmark.load(folder)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6


@pytest.mark.slow
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_two_shipped_rows_are_trained_again(folder: Path) -> None:
    data = Path("data/cifar10")
    if not (data / "manifest.json").exists():
        pytest.skip("CIFAR-10 is not prepared: run python -m pipelines.prepare cifar10")
    recipe = load_recipe(Path(benchmark.__file__).parent / "benchmarks" / f"{folder.name}.yaml")
    from search.benchmark.recipe import prepare_images
    from search.benchmark.train import train

    images = prepare_images(recipe, load_cifar10(data, "train"), load_cifar10(data, "test"))
    table = Benchmark.load(folder)
    entry = next(iter(table.values()))
    for binary, results in ((True, entry.child), (False, entry.parent)):
        run = train(recipe, images, entry.choices, binary=binary, seed=0, every_epoch=False)
        assert (run.loss, round(run.test, 6)) == (results.seed(0).loss, results.seed(0).test)


def test_a_journal_refuses_a_foreign_line(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("architecture,precision\nmax|max,child\n")
    with pytest.raises(InputError, match="line 2 is no training"):
        Journal(tmp_path / "runs.csv").read()
