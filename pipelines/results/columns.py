"""The columns of the result tables and what each means; README, CSV and views are made from this."""

from __future__ import annotations

from dataclasses import dataclass, field

METHOD_NAMES = {
    "random": "Random search",
    "darts": "DARTS",
    "pc_darts": "PC-DARTS",
    "bnas": "BNAS (Chen)",
    "cp_nas": "CP-NAS",
    "dcp_nas": "DCP-NAS",
}
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
DETECTOR_COSTS = {
    "backbone_ops_strict_M": "BOPs/64 + FLOPs of the backbone alone, W1A32 MACs counted as real, millions",
    "backbone_mbit": "memory of the backbone's weights alone",
}
DATA_KINDS = {
    "paper": ("", "on the papers' own data set"),
    "other": ("other_", "on other data than the papers'"),
    "stand-in": ("stand_in_", "on a stand-in data set"),
}
"""What numbers may be measured on: the prefix of their columns, and in words."""
DATA_MARKS = {"paper": "", "other": " (other data)", "stand-in": " (stand-in)"}
"""What stands behind a data set's name."""
DATA_KIND_DOC = (
    "paper: a data set of the papers (`datasets` in literature.yaml); other: other data than the "
    "papers'; stand-in: stands in for the papers'. Only the first compares with the literature"
)
SEARCH_COST = {
    "search_seconds": "wall time of the search that found the network, mean over the searches",
    "search_images": "images seen by that search, mean over the searches",
    "search_device": "device that the search ran on",
}


@dataclass(frozen=True)
class Metric:
    """A measured value of a stage.

    Attributes:
        key: Its name in metrics.json.
        head: Its heading in views.
        doc: What it is.
        paper: The key of its counterpart in literature.yaml, or None.
        floor: The metric of the same network before training that is read beside it, or None.
    """

    key: str
    head: str
    doc: str
    paper: str | None = None
    floor: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """A result table.

    Attributes:
        name: File name without suffix.
        title: Heading.
        stage: The stage whose records fill it.
        about: One sentence for the reader.
        metrics: Its measured values, the first one decides the order of the rows.
        extra: Further columns with their explanation.
        own: All its columns, where they are not those of the other tables.
    """

    name: str
    title: str
    stage: str
    about: str
    metrics: tuple[Metric, ...]
    extra: dict[str, str]
    own: dict[str, str] = field(default_factory=dict)


SEARCH_EXTRA = {
    "skip_connects": "skip connections in the found normal cell, one number a seed",
    "depth": "longest chain of edges in the found normal cell, one number a seed",
    "parameter_free_share": "share of the normal cell's edges without a convolution, one number a seed",
    "collapsed": "how many of the found cells have collapsed, see search.genotype.collapse",
    "epochs": "epochs of the search, mean",
    "images_seen": "images seen by the search, mean",
    "seconds": "wall time of the search in seconds, mean",
    "peak_memory_mib": "peak memory of the search in MiB, mean",
}
TRAINING_EXTRA = {
    "epochs": "epochs of training, mean",
    "images_seen": "images seen in training, mean",
    "seconds": "wall time of training and testing in seconds, mean",
    "peak_memory_mib": "peak memory in MiB, mean",
}
READ_BACK = {
    "read_back": "how many of the runs' exported weights the stage `evaluate` has read back, of all runs: exact where "
    "accuracy, top-5 and loss are the recorded ones to the last bit; otherwise the largest difference; empty: none"
}

COMPARED = {
    "accuracy": "test accuracy after retraining, percent; mean over the searches",
    "accuracy_std": "sample standard deviation over the searches; empty for one search",
    "difference": "mean difference to `against`, paired by search seed, percentage points",
    "difference_low": "lower end of its bootstrap interval",
    "difference_high": "upper end of its bootstrap interval",
}
COMPARISON: dict[str, str] = (
    {
        "level": "reproduced at reduced scale / reproduced, computed from the records",
        "name": "search method with what its variant changes",
        "variant": "entry of search.method in params.yaml; the method's own name: its base form",
        "precision": "1bit, or real for the real-valued twin",
        "form": "layer order of the operations: paper, released or darts",
        "profile": "campaign of the run records, a folder of results/records/",
        "dataset": "data set of the retraining",
        "data_kind": DATA_KIND_DOC,
        "train_images": "images trained on",
    }
    | {
        f"{prefix}{key}": f"{meaning}; {where}"
        for prefix, where in DATA_KINDS.values()
        for key, meaning in COMPARED.items()
    }
    | {
        "searches": "number of searches, each retrained with one seed or more; training seeds are averaged first",
        "runs": "number of retrainings, all of them",
        "values": "accuracy of every search, percent, in the order of the search seeds",
        "against": "what it is compared with: random search, for a variant its method's base form",
        "pairs": "search seeds that both have",
        "p": "two-sided p value of the paired t-test; empty below the least number of pairs in claims.yaml",
        "p_holm": "the same after Holm's correction over the tests of this campaign, data set and precision",
        "settings": "short hash of the retraining's settings",
    }
)
"""Columns of comparison.csv."""

TABLES = (
    TableSpec(
        "search",
        "Search",
        "search",
        "What each search spent and what it found. The validation accuracy is the search's own, on its "
        "weight-sharing networks: it ranks nothing across methods, the retrained accuracy does.",
        (
            Metric(
                "val_accuracy",
                "validation acc. %",
                "validation accuracy at the end of the search, percent",
            ),
        ),
        SEARCH_EXTRA,
    ),
    TableSpec(
        "classification",
        "Classification",
        "retrain",
        "Every network retrained from scratch by one recipe; accuracy on test data after the last epoch.",
        (
            Metric("accuracy", "top-1 %", "test accuracy after the last epoch, percent", "accuracy"),
            Metric("top5", "top-5 %", "test top-5 accuracy after the last epoch, percent", "top5"),
        ),
        TRAINING_EXTRA | READ_BACK,
    ),
    TableSpec(
        "comparison",
        "Comparison",
        "retrain",
        "Every found network against random search, every variant of a method against its base form: paired by "
        "search seed, training seeds averaged first. A difference says something where the p value after Holm's "
        "correction is small; where it is empty there were too few pairs.",
        (),
        {},
        COMPARISON,
    ),
    TableSpec(
        "detection",
        "Detection",
        "detect",
        "The detector that each row names, on the retrained backbone; its value before training stands beside it as "
        "the floor. Operations and memory are the whole detector's at the test size, W/A the backbone's: neck and "
        "heads are real-valued, but for what `binary_neck` makes 1-bit.",
        (
            Metric(
                "voc_map50",
                "VOC07 11-point mAP@0.5 %",
                "mean average precision at IoU 0.5 by VOC2007's 11-point rule, percent",
                "map50",
                "untrained_voc_map50",
            ),
            Metric(
                "untrained_voc_map50",
                "untrained VOC07 mAP@0.5 %",
                "voc_map50 of the same detector before its first training step, percent",
            ),
            Metric("coco_map", "COCO AP %", "COCO average precision (IoU 0.5 to 0.95), percent", "map"),
            Metric("coco_map50", "COCO AP50 %", "COCO average precision at IoU 0.5, percent"),
            Metric(
                "untrained_coco_map50",
                "untrained AP50 %",
                "coco_map50 of the same detector before its first training step, percent",
            ),
        ),
        TRAINING_EXTRA,
    ),
    TableSpec(
        "reid",
        "Re-identification",
        "reid",
        "Retrieval with the retrained backbone. Two floors stand beside it: the network with random weights, "
        "and the raw pixels compared without any network.",
        (
            Metric(
                "map", "mAP %", "mean average precision of the retrieval, percent", "map", "untrained_map"
            ),
            Metric("rank1", "rank-1 %", "queries whose first match is right, percent", "rank1"),
            Metric("rank5", "rank-5 %", "queries with a right match among the first 5, percent"),
            Metric("rank10", "rank-10 %", "queries with a right match among the first 10, percent"),
            Metric(
                "untrained_map", "untrained mAP %", "mAP of the same network with random weights, percent"
            ),
            Metric(
                "untrained_rank1",
                "untrained rank-1 %",
                "rank-1 of the same network with random weights, percent",
            ),
            Metric("pixels_map", "pixels mAP %", "mAP of the raw pixels, without any network, percent"),
            Metric(
                "pixels_rank1", "pixels rank-1 %", "rank-1 of the raw pixels, without any network, percent"
            ),
        ),
        TRAINING_EXTRA,
    ),
    TableSpec(
        "cost",
        "Cost",
        "cost",
        "Counted, not timed: the same counter for every network, at the input size named in the row.",
        (),
        {
            "counted_for": "the stage whose network was counted; imagenet: the published size",
            "params": "number of parameters",
            "input_size": "input of the count, height x width",
        },
    ),
)


def columns(spec: TableSpec) -> dict[str, str]:
    """Every column of a table's CSV file, in order, with its explanation."""
    if spec.own:
        return dict(spec.own)
    named = {
        "level": "cited / re-evaluated / reproduced at reduced scale / reproduced, computed from the records",
        "name": "search method with what its variant changes, or hand-made or published network",
        "variant": "entry of search.method in params.yaml; the method's own name: its base form",
        "precision": "1bit, or real for the real-valued twin (in the search table: what was searched)",
        "form": "layer order of the operations: paper, released or darts; empty for hand-made networks",
        "wa": "bits of weights/activations; 1/1 + 1/32: some layers have real activations",
        "profile": "campaign of the run records, a folder of results/records/",
    }
    if spec.stage == "search":
        named["profile"] += "; several: they share the search"
    if spec.stage == "detect":
        named["wa"] += "; of the backbone"
        named["detector"] = "what was trained on the backbone: faster_rcnn, retinanet or ssd"
        named["binary_neck"] = "yes: the convolutions of the neck and of the region proposals are 1-bit too"
    if spec.stage != "cost":
        named |= {
            "dataset": "data set this row's own numbers were measured on",
            "data_kind": DATA_KIND_DOC,
            "train_images": "images trained on",
            "test_images": "images the value was measured on (search table: the search's validation half)",
        }
    for metric in spec.metrics:
        for prefix, where in DATA_KINDS.values():
            named[f"{prefix}{metric.key}"] = f"{metric.doc}; mean over all runs, {where}"
            named[f"{prefix}{metric.key}_std"] = "sample standard deviation over the runs; empty for one run"
    named |= {
        "n": "number of runs, all of them",
        "searches": "number of independent searches among them; empty for networks that were not searched",
        "seeds": "every seed: search seed:training seed for found networks, training seed otherwise",
    }
    if spec.metrics:
        named["values"] = f"{spec.metrics[0].key} of every run, percent, in the order of the seeds"
    counted = "the whole detector, mean over the runs" if spec.stage == "detect" else "mean over the runs"
    named |= {key: f"{doc}; {counted}" for key, (_, doc) in COSTS.items()}
    if spec.stage == "detect":
        named |= {key: f"{doc}; mean over the runs" for key, doc in DETECTOR_COSTS.items()}
    named |= spec.extra
    if spec.stage not in ("search", "cost"):
        named |= SEARCH_COST
    named |= {
        "genotype": "first 8 hex digits of the genotype's hash, one a search",
        "hardware": "device the runs were made on",
        "commit": "code commit of the runs; + after it: with uncommitted changes",
        "settings": "short hash of the settings, seeds apart: runs of different settings are never averaged",
        "paper_name": "the literature's name of the network",
        "paper_dataset": "data set of the literature's numbers",
        "paper_wa": "weight/activation bits of the literature's network; 1/?: not stated there",
    }
    named |= {f"paper_{m.paper}": f"literature: {m.head}, as printed" for m in spec.metrics if m.paper}
    if spec.name == "search":
        named["paper_accuracy"] = "literature: top-1 % of the found network after retraining, as printed"
        named["paper_top5"] = "literature: top-5 % of the found network after retraining, as printed"
    named |= {
        "paper_ops_M": "literature: OPs in millions, by the source's own convention",
        "paper_bops_M": "literature: BOPs in millions",
        "paper_flops_M": "literature: FLOPs in millions",
        "paper_memory_MB": "literature: memory in MB, as printed",
        "paper_search_cost": "literature: search cost as printed; the source at hand gives no unit",
    }
    if spec.name == "cost":
        named |= {
            f"paper_{key}": f"literature: {doc}"
            for key, (_, doc) in COSTS.items()
            if f"paper_{key}" not in named
        }
        named["paper_params"] = "literature: number of parameters"
    return named | {
        "source": "where the literature's numbers are printed",
        "note": "what to know before comparing",
    }
