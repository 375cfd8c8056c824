"""The result tables and their columns, each declared once; CSV, README and the tables that are read follow from it.

To add a column, add a :class:`Column` to the tuple where it belongs. A metric that should only be shown as a column of
its own needs no more than its entry in :mod:`pipelines.results.metrics`, with the table's name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pipelines.results.column import Column, Row, Table, chosen, label, measured
from pipelines.results.comparison import COMPARISON, DATA_KIND_DOC
from pipelines.results.groups import Group, mean, unique
from pipelines.results.metrics import METRICS, Metric
from pipelines.results.variants import WHOSE

Columns = tuple[Column, ...]
METHOD_DOC = "search method with what its variant changes, or hand-made or published network"
COSTS = {
    "bops_M": ("BOPs M", "1-bit multiply-accumulates (weights and activations 1 bit), millions"),
    "w1a32_macs_M": (
        "W1A32 MACs M",
        "multiply-accumulates with 1-bit weights and real activations, millions",
    ),
    "flops_M": ("FLOPs M", "all other multiply-accumulates of convolutions and linear layers, millions"),
    "ops_strict_M": ("OPs strict M", "BOPs/64 + FLOPs, W1A32 MACs counted as real, millions"),
    "ops_generous_M": ("OPs generous M", "BOPs/64 + FLOPs, W1A32 MACs counted as binary, millions"),
    "mbit": ("Mbit", "memory of the weights: 1 bit a binary weight, 32 bits any other parameter"),
}
"""Counted costs: heading and meaning."""


def runs_of(row: Row) -> str:
    """How many runs a row's value is the mean of, and of how many searches where its network was found."""
    searches = row.get("searches")
    return f"{row['n']}" + (f" ({searches} search{'es' if int(searches) > 1 else ''})" if searches else "")


def _names(stage: str) -> Columns:
    detect = stage == "detect"
    campaigns = "; several: they share the search" if stage == "search" else ""
    # fmt: off
    found: Columns = (
        Column("level",
            "cited / re-evaluated / reproduced at reduced scale / reproduced, computed from the records",
            lambda g: g.level, "level", main=90),
        Column("name", METHOD_DOC, lambda g: g.first.label, "network", 1, 1, shown=label),
        Column("variant", "entry of search.method in params.yaml; the method's own name: its base form",
            lambda g: g.first.variant),
        Column("precision", "1bit, or real for the real-valued twin (in the search table: what was searched)",
            lambda g: g.first.precision),
        Column("form", "layer order of the operations: paper, released or darts; empty for hand-made networks",
            lambda g: g.first.form),
        Column("block",
            "settings of search.style.BlockSettings in which its blocks differ from the form's own and a twin "
            "Parent", lambda g: g.block, "block", 2.5, filled=True),
        Column("wa",
            "bits of weights/activations; 1/1 + 1/32: some layers have real activations"
            + ("; of the backbone" if detect else ""),
            lambda g: g.widths, "W/A of the backbone" if detect else "W/A", 3),
        Column("campaign", "campaign of the run records, a folder of results/records/" + campaigns,
            lambda g: g.campaigns, join=", "),
    )
    # fmt: on
    return found + (DETECTOR if detect else ()) + (DATA if stage != "cost" else ())


# fmt: off
DETECTOR: Columns = (
    Column("detector", "what was trained on the backbone: faster_rcnn, retinanet or ssd",
        lambda g: g.first.params.get("detection", {}).get("detector"), "detector", 2),
    Column("binary_neck", "yes: the convolutions of the neck and of the region proposals are 1-bit too",
        lambda g: "yes" if g.binary_neck else "no"),
)
DATA: Columns = (
    Column("dataset", "data set this row's own numbers were measured on", lambda g: g.first.data.name),
    Column("data_kind", DATA_KIND_DOC, lambda g: g.first.data_kind),
    Column("train_images", "images trained on", lambda g: g.first.data.train_images, "training images",
        origin=10, digits=0),
    Column("test_images", "images the value was measured on (search table: the search's validation half)",
        lambda g: g.first.data.test_images or g.first.data.validation_images, "test images", origin=11,
        digits=0),
)
# fmt: on


def _metrics(metrics: tuple[Metric, ...]) -> Columns:
    return tuple(column for place, metric in enumerate(metrics, 10) for column in measured(metric, place))


def _counts(stage: str, metrics: tuple[Metric, ...]) -> Columns:
    plain = stage in ("search", "cost")
    # fmt: off
    every: Columns = (
        Column("n", "number of runs, all of them", lambda g: len(g.runs), "n", 30, digits=0)
        if plain
        else Column(
            "n", "number of runs, all of them", lambda g: len(g.runs), "n", 30, digits=0, shown=runs_of
        ),
        Column("searches",
            "number of independent searches among them; empty for networks that were not searched",
            lambda g: len({run.search_seed for run in g.runs}) if g.first.method else None),
        Column("seeds", "every seed: search seed:training seed for found networks, training seed otherwise",
            lambda g: g.seeds, "seeds", origin=2),
    )
    # fmt: on
    if not metrics:
        return every
    key = metrics[0].key
    values = Column(
        "values",
        f"{key} of every run, percent, in the order of the seeds",
        lambda g: tuple(round(100 * float(run.metrics[key]), 2) for run in g.runs),
        f"{metrics[0].head}, every run",
        origin=3,
        item="{:.2f}",
    )
    return (*every, values)


def _costs(stage: str) -> Columns:
    detect, shown = stage == "detect", stage != "search"
    of, head = ("the whole detector, ", "detector ") if detect else ("", "")
    # fmt: off
    found = tuple(
        Column(key, f"{doc}; {of}mean over the runs", partial(Group.cost, key=key), head + name,
            40 + place if shown else 0, digits=2)
        for place, (key, (name, doc)) in enumerate(COSTS.items())
    )
    # fmt: on
    return found + (BACKBONE if detect else ())


# fmt: off
BACKBONE: Columns = (
    Column("backbone_ops_strict_M",
        "BOPs/64 + FLOPs of the backbone alone, W1A32 MACs counted as real, millions; mean over the runs",
        lambda g: g.backbone_cost("ops_strict_M"), "backbone OPs strict M", 50, digits=2),
    Column("backbone_mbit", "memory of the backbone's weights alone; mean over the runs",
        lambda g: g.backbone_cost("mbit"), "backbone Mbit", 51, digits=2),
)
# fmt: on


def _input(group: Group) -> str | None:
    size = group.first.cost.input if group.first.cost else None
    return None if size is None else " x ".join(map(str, size if isinstance(size, list) else [size, size]))


# fmt: off
COUNTED: Columns = (
    Column("counted_for", "the stage whose network was counted; imagenet: the published size",
        lambda g: g.first.task),
    Column("params", "number of parameters", lambda g: mean((run.cost.params for run in g.runs), 0),
        "parameters", 60, digits=0),
    Column("input_size", "input of the count, height x width", _input),
)
# fmt: on


def _averaged(
    key: str, doc: str, head: str = "", main: float = 0, origin: float = 0, digits: int = 0
) -> Column:
    """The mean of a metric over the runs."""
    return Column(key, doc, lambda g: g.metric(key), head, main, origin, digits)


TRAINING: Columns = (
    _averaged("epochs", "epochs of training, mean", "epochs", origin=12),
    _averaged("images_seen", "images seen in training, mean"),
    _averaged("seconds", "wall time of training and testing in seconds, mean", "seconds", origin=13),
    _averaged("peak_memory_mib", "peak memory in MiB, mean"),
)
READ_BACK = Column(
    "read_back",
    "how many of the runs' exported weights the stage `evaluate` has read back, of all runs: exact where "
    "accuracy, top-5 and loss are the recorded ones to the last bit; otherwise the largest difference; empty: none",
    lambda g: g.read_back,
    "read back",
    origin=30,
)


def _cell(key: str, doc: str, head: str, main: float, item: str = "{}") -> Column:
    """A number of each found normal cell."""
    return Column(
        key,
        f"{doc}, one number a seed",
        lambda g: tuple(getattr(c, key) for c in g.cells),
        head,
        main,
        item=item,
    )


# fmt: off
SEARCHED: Columns = (
    Column("val_accuracy_of", "whose the validation accuracy is: what the method saw last for its choice",
        lambda g: WHOSE.get(g.first.method), "of", 10.5),
    _cell("skip_connects", "skip connections in the found normal cell", "skips", 64),
    _cell("depth", "longest chain of edges in the found normal cell", "depth", 65),
    _cell("parameter_free_share", "share of the normal cell's edges without a convolution", "param.-free", 66,
        "{:.2f}"),
    Column("collapsed", "how many of the found cells have collapsed, see search.genotype.collapse",
        lambda g: f"{sum(c.collapsed for c in g.cells)} of {len(g.cells)}" if g.cells else None, "collapsed",
        67),
    _averaged("epochs", "epochs of the search, mean", "epochs", 60),
    _averaged("images_seen", "images seen by the search, mean", "images", 61),
    _averaged("seconds", "wall time of the search in seconds, mean", "seconds", 62, digits=1),
    _averaged("peak_memory_mib", "peak memory of the search in MiB, mean", "peak MiB", 63),
)
SEARCH_COST: Columns = (
    Column("search_seconds", "wall time of the search that found the network, mean over the searches",
        lambda g: mean((run.metrics["seconds"] for run in g.searches), 1), "search s", 70, digits=0),
    Column("search_images", "images seen by that search, mean over the searches",
        lambda g: mean((run.metrics["images_seen"] for run in g.searches), 0), "search images", origin=20,
        digits=0),
    Column("search_device", "device that the search ran on",
        lambda g: unique(run.provenance.hardware for run in g.searches), "search device", origin=21, join="; "),
)
ORIGIN: Columns = (
    Column("genotype", "first 8 hex digits of the genotype's hash, one a search", lambda g: g.genotypes,
        "genotype", origin=40),
    Column("hardware", "device the runs were made on",
        lambda g: unique(run.provenance.hardware for run in g.runs), "hardware", origin=42, join="; "),
    Column("commit", "code commit of the runs; + after it: with uncommitted changes",
        lambda g: unique(run.provenance.commit for run in g.runs), "commit", origin=43),
    Column("settings", "short hash of the settings, seeds apart: runs of different settings are never averaged",
        lambda g: g.first.settings, "settings", origin=41),
)
# fmt: on


def _cited(key: str, doc: str, cited: str, head: str = "", main: float = 0) -> Column:
    """A number or word of the literature, beside ours and in rows of its own."""
    return Column(key, doc, None, head, main, digits=0 if main else None, cited=cited)


CITED_COSTS = {
    "ops_M": (24, "OPs M (source's convention)", "OPs in millions, by the source's own convention"),
    "bops_M": (21, "BOPs M", "BOPs in millions"),
    "flops_M": (23, "FLOPs M", "FLOPs in millions"),
    "memory_MB": (28, "MB", "memory in MB, as printed"),
    "search_cost": (
        30,
        "search cost (no unit given)",
        "search cost as printed; the source at hand gives no unit",
    ),
}
COUNTED_PLACES = {"w1a32_macs_M": 22, "ops_strict_M": 25, "ops_generous_M": 26, "mbit": 27}


def _literature(name: str, metrics: tuple[Metric, ...]) -> Columns:
    # fmt: off
    found = [
        _cited("paper_name", "the literature's name of the network", "name"),
        _cited("paper_dataset", "data set of the literature's numbers", "dataset"),
        _cited("paper_wa", "weight/activation bits of the literature's network; 1/?: not stated there", "wa",
            "W/A"),
    ]
    # fmt: on
    for place, m in enumerate((m for m in metrics if m.paper), 10):
        found.append(
            _cited(f"paper_{m.paper}", f"literature: {m.head}, as printed", str(m.paper), m.head, place)
        )
    if name == "search":
        for key, head, place in (("accuracy", "top-1 %", 10), ("top5", "top-5 %", 11)):
            doc = f"literature: {head} of the found network after retraining, as printed"
            found.append(_cited(f"paper_{key}", doc, key, head, place))
    for key, (place, head, doc) in CITED_COSTS.items():
        found.append(_cited(f"paper_{key}", f"literature: {doc}", key, head, place))
    if name == "cost":
        for key in (key for key in COSTS if key not in CITED_COSTS):
            head, doc = COSTS[key]
            found.append(_cited(f"paper_{key}", f"literature: {doc}", key, head, COUNTED_PLACES[key]))
    if name in ("cost", "classification"):
        main = 29 if name == "classification" else 0
        doc = "literature: number of parameters"
        found.append(_cited("paper_params", doc, "params", "parameters", main))
    found.append(_cited("source", "where the literature's numbers are printed", "source"))
    found.append(_cited("note", "what to know before comparing", "note"))
    return tuple(found)


def _shown_alone(name: str) -> Columns:
    """The metrics that name this table, each in a column of its own."""
    found = (m for m in METRICS.values() if m.table == name)
    return tuple(
        replace(_averaged(m.key, f"{m.doc}; mean", m.head, 80 + place / 100, digits=3), filled=True)
        for place, m in enumerate(found)
    )


def _standard(name: str, title: str, stage: str, metrics: str, about: str, extra: Columns) -> Table:
    measures = chosen(metrics)
    columns = (
        *_names(stage),
        *_metrics(measures),
        *_counts(stage, measures),
        *_costs(stage),
        *extra,
        *_shown_alone(name),
        *(SEARCH_COST if stage not in ("search", "cost") else ()),
        *ORIGIN,
        *_literature(name, measures),
    )
    return Table(name, title, stage, about, columns, measures)


def _noise(group: Group) -> tuple[str, ...] | None:
    """The diagnoses by which a search is noise; None where nothing was recorded."""
    found = (
        (m, group.metric(m.key)) for m in METRICS.values() if m.table == "signal" and m.noise is not None
    )
    known = [(m, value) for m, value in found if value is not None]
    return (tuple(m.head for m, value in known if m.is_noise(value)) or ("nothing",)) if known else None


def _levels() -> str:
    """From which value on each diagnosis says that a search is noise."""
    found = [m for m in METRICS.values() if m.table == "signal" and m.noise is not None]
    return "; ".join(
        f"{m.head} {'at or above' if m.better == 'down' else 'at or below'} {m.noise:g}" for m in found
    )


SIGNAL = Table(
    "signal",
    "Does it search?",
    "search",
    "Whether what a search went by is more than chance, and whether it trained what it says. A run is noise by one of "
    f"these at these levels: {_levels()}. A diagnosis that a method has not, or that older code did not record, is "
    "left empty.",
    (
        *_names("search"),
        *_counts("search", ()),
        *_shown_alone("signal"),
        Column("noise", "diagnoses by which the run is noise", _noise, "this run is noise by", 89, join=", "),
        *ORIGIN,
    ),
)
TABLES = (
    _standard(
        "search",
        "Search",
        "search",
        "val_accuracy",
        "What each search spent and what it found. The validation accuracy is the search's own, on its "
        "weight-sharing networks: it ranks nothing across methods, the retrained accuracy does.",
        SEARCHED,
    ),
    SIGNAL,
    _standard(
        "classification",
        "Classification",
        "retrain",
        "accuracy top5",
        "Every network retrained from scratch by one recipe; accuracy on test data after the last epoch.",
        (*TRAINING, READ_BACK),
    ),
    COMPARISON,
    _standard(
        "detection",
        "Detection",
        "detect",
        "voc_map50 untrained_voc_map50 coco_map coco_map50 untrained_coco_map50",
        "The detector that each row names, on the retrained backbone; its value before training stands beside it as "
        "the floor. Operations and memory are the whole detector's at the test size, W/A the backbone's: neck and "
        "heads are real-valued, but for what `binary_neck` makes 1-bit.",
        TRAINING,
    ),
    _standard(
        "reid",
        "Re-identification",
        "reid",
        "map rank1 rank5 rank10 untrained_map untrained_rank1 pixels_map pixels_rank1",
        "Retrieval with the retrained backbone. Two floors stand beside it: the network with random weights, "
        "and the raw pixels compared without any network.",
        TRAINING,
    ),
    _standard(
        "cost",
        "Cost",
        "cost",
        "",
        "Counted, not timed: the same counter for every network, at the input size named in the row.",
        COUNTED,
    ),
)
