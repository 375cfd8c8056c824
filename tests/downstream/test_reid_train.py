"""Training by Torchreid's engines: it learns, repeats bit for bit, and goes on after an interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from downstream.reid import experiment, loaders, model, pictures, train
from downstream.reid.backbone import BackboneSpec
from downstream.reid.compat import torchreid
from downstream.reid.experiment import Outcome
from downstream.reid.loaders import Source
from downstream.reid.settings import ReidSettings
from search.errors import InputError
from search.weights import hash_state
from tests.downstream import reid_fixture as fixture

SMALL = BackboneSpec("DARTS_V2", "1bit", channels=4, cells=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source("textures", str(fixture.make(tmp_path_factory.mktemp("textures"))), "folder")


def run(source: Source, settings: ReidSettings, spec: BackboneSpec = SMALL, **more: Any) -> Outcome:
    return experiment.run(spec, source, None, settings, seed=more.pop("seed", 0), device=CPU, **more)


def without_seconds(rows: list[train.Row]) -> list[train.Row]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_metrics_and_history(source: Source, loss: str) -> None:
    outcome = run(source, fixture.settings(loss=loss))
    assert [row["epoch"] for row in outcome.history] == [1, 2]
    assert outcome.metrics["images_seen"] == sum(row["images"] for row in outcome.history) > 0
    shares = ("rank1", "rank5", "rank10", "map", "untrained_rank1", "untrained_map", "pixels_map")
    assert all(0 <= outcome.metrics[key] <= 1 for key in shares)
    assert outcome.metrics["queries"] == 3
    if loss == "triplet":
        row = outcome.history[0]
        assert row["loss"] == pytest.approx(row["loss_t"] + row["loss_x"])


def test_measures_in_training_change_nothing_but_the_history(source: Source) -> None:
    plain = run(source, fixture.settings(epochs=5))
    curve = run(source, fixture.settings(epochs=5, evaluate_every=2))
    shorter = run(source, fixture.settings(epochs=2))
    assert hash_state(curve.model) == hash_state(plain.model)
    assert [row["loss"] for row in curve.history] == [row["loss"] for row in plain.history]
    assert [row["epoch"] for row in curve.history if "map" in row] == [2, 4, 5]
    assert not any("map" in row for row in plain.history)
    for row, finished in ((curve.history[1], shorter), (curve.history[-1], plain)):
        assert {key: row[key] for key in ("map", "rank1")} == {
            key: finished.metrics[key] for key in ("map", "rank1")
        }


def test_a_real_network_learns(source: Source) -> None:
    """Twenty epochs on textures that differ at a glance: from guessing among four to knowing them."""
    plain = {"erasing": 0.0, "flip": False, "pad": 0, "label_smoothing": 0.0, "steps": [], "warmup_epochs": 0}
    easy = fixture.settings(loss="softmax", epochs=20, identities=4, identity_sampler=False, **plain)
    history = run(source, easy, BackboneSpec("resnet-18", "real", channels=4)).history
    assert history[0]["loss"] > 1.2  # ln 4 = 1.39
    assert history[-1]["loss"] < 0.2 and history[-1]["accuracy"] == 100


def test_a_seed_decides_everything(source: Source) -> None:
    settings = fixture.settings()
    first, second, other = (run(source, settings, seed=seed) for seed in (3, 3, 4))
    assert without_seconds(first.history) == without_seconds(second.history)
    assert hash_state(first.model) == hash_state(second.model) != hash_state(other.model)
    assert first.metrics["map"] == second.metrics["map"]


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_interrupted_and_gone_on(source: Source, tmp_path: Path, loss: str) -> None:
    settings = fixture.settings(loss=loss, epochs=3)
    straight = run(source, settings)

    def interrupt(row: train.Row) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, settings, resume_root=tmp_path, report=interrupt)
    seen: list[float] = []
    resumed = run(source, settings, resume_root=tmp_path, report=lambda row: seen.append(row["epoch"]))
    assert seen == [3]
    assert without_seconds(resumed.history) == without_seconds(straight.history)
    assert hash_state(resumed.model) == hash_state(straight.model)
    assert not list(tmp_path.rglob("*.pt"))


def test_other_settings_start_anew(source: Source, tmp_path: Path) -> None:
    def interrupt(row: train.Row) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, fixture.settings(), resume_root=tmp_path, report=interrupt)
    seen: list[float] = []
    run(
        source,
        fixture.settings(margin=0.5),
        resume_root=tmp_path,
        report=lambda row: seen.append(row["epoch"]),
    )
    assert seen == [1, 2]


def test_the_recipe_reaches_torchreids_engine(source: Source) -> None:
    settings = fixture.settings(label_smoothing=0.2, margin=0.7, triplet_weight=0.5, weight_decay=0.01)
    built = loaders.build(source, None, settings)
    network = model.build(SMALL, built.identities, loss="triplet", bnneck=True)
    engine = train.build_engine(network, built, settings, use_gpu=False)
    assert isinstance(engine, torchreid().engine.ImageTripletEngine)
    assert (engine.criterion_x.eps, engine.criterion_t.margin, engine.weight_t) == (0.2, 0.7, 0.5)
    group = engine.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"]) == (0.01, (0.9, 0.999))
    sampler = built.manager.train_loader.sampler
    assert (sampler.num_pids_per_batch, sampler.num_instances) == (2, 2)


def test_learning_rate_of_the_strong_baseline() -> None:
    """3.5e-4 after 10 epochs of warm-up, a tenth from epoch 40 and again from 70 (Luo et al. 2019)."""
    settings = fixture.settings(
        learning_rate=3.5e-4, warmup_epochs=10, warmup_factor=0.1, steps=[40, 70], gamma=0.1, epochs=120
    )
    rates = [settings.learning_rate * train.learning_rate_factor(settings, epoch) for epoch in range(120)]
    assert rates[0] == pytest.approx(3.5e-5)
    assert rates[5] == pytest.approx((3.5e-5 + 3.5e-4) / 2)
    assert rates[10] == rates[39] == pytest.approx(3.5e-4)
    assert rates[40] == rates[69] == pytest.approx(3.5e-5)
    assert rates[119] == pytest.approx(3.5e-6)


def test_a_diverging_run_is_one_line(source: Source) -> None:
    """At a rate beyond what settings allow: Adam's steps are bounded, an allowed one hardly diverges."""
    wild = fixture.settings(loss="softmax", warmup_epochs=0, bnneck=False).model_copy(
        update={"learning_rate": 1e30}
    )
    with pytest.raises(InputError, match=r"the loss is (nan|inf) in epoch \d; lower reid.learning_rate"):
        run(source, wild)


def test_pictures_are_small_and_the_same_queries_every_time(source: Source, tmp_path: Path) -> None:
    outcome = run(source, fixture.settings(epochs=1))
    files = pictures.write(tmp_path, outcome.evaluation, 2)
    assert [file.name for file in files] == ["query-00000.png", "query-00002.png"]
    assert sum(file.stat().st_size for file in files) < 150_000


def test_right_and_wrong_are_marked(source: Source) -> None:
    outcome = run(source, fixture.settings(epochs=1))
    evaluation = outcome.evaluation
    right = evaluation.gallery.pids == evaluation.query.pids[0]
    other_camera = evaluation.gallery.cameras != evaluation.query.cameras[0]
    evaluation.matrix[0] = (~(right & other_camera)).astype(float)  # the right ones first
    strip = pictures.draw(evaluation, 0)
    tile = strip.height  # tiles are 40:32, scaled to the height, with a frame around
    colours = [strip.getpixel((x, 0)) for x in range(strip.width)]
    order = [c for i, c in enumerate(colours) if c != (255, 255, 255) and (i == 0 or colours[i - 1] != c)]
    found = int((right & other_camera).sum())
    kept = len(right) - int((right & ~other_camera).sum())
    assert tile == pictures.TILE_HEIGHT + 2 * pictures.FRAME
    assert order == [pictures.QUERY] + [pictures.RIGHT] * found + [pictures.WRONG] * (min(10, kept) - found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "triplet", "identity_sampler": False}, "the triplet loss needs identity_sampler"),
        ({"steps": [5, 3]}, "must be rising epochs"),
        ({"distance": "manhattan"}, "distance"),
        ({"centre_loss": 0.0005}, "centre_loss"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fixture.settings(**changes)
