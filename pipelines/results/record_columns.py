"""What the columns in the files of a run record mean, for ``results/README.md``."""

from __future__ import annotations

HISTORY = {
    "step": "search: number of the row, from 0: a draw, or an epoch",
    "epoch": "epochs done; retrain: the epoch, from 0",
    "k": "search by elimination: operations that every edge still has",
    "round": "CP-NAS: which of the `rounds` times the operations are drawn; DCP-NAS: which turn of Parent and Child",
    "draw": "search by elimination: which of the K architectures of a round",
    "phase": "DCP-NAS: parent or child, which of the two is trained; BNAS: mixture or sample",
    "architecture": "searches among whole architectures (random, evolution, local): number of the architecture",
    "normal, reduce": "search by elimination: the drawn operation of each of the 14 edges, as one octal number",
    "genotype": "the same: hash of its genotype",
    "accuracy_child, accuracy_parent": "validation accuracy of the Child and of the real-valued Parent, in [0, 1]",
    "loss_child, loss_parent": "mean training loss of the epoch",
    "z": "CP-NAS: the draw's performance indicator",
    "reconstruction": "DCP-NAS: reconstruction error at the end of the epoch",
    "entropy": "differentiable searches: mean entropy of an edge's softmax, nats",
    "mean_margin": "differentiable searches: mean difference between an edge's two largest mixing weights",
    "tau": "differentiable searches: mean over edges of Kendall's tau of the alphas and those of the epoch before",
    "parameter_free_share, collapsed": "differentiable searches: of the normal cell that the alphas give at present",
    "distance, tangent_cosine": "DCP-NAS: distance and cosine of the tangent directions, mean over the epoch",
    "psi_mean, psi_min, psi_max": "DCP-NAS, decoupled: mean, smallest and largest element of psi",
    "sign_flips, sign_flip_share": "search, retrain: trained 1-bit weights that changed sign in the epoch; their share",
    "tangent_share, backtrack_share": "DCP-NAS: norm of the term over that of G or the descent",
    "curvature_cosine": "DCP-NAS: cosine of the exact and the Gauss-Newton product",
    "selection_change_share": "DCP-NAS: share of the operations whose selection for backtracking changed",
    "stage": "retrain: number of the recipe stage, from 0",
    "class_mean_share, kernel_share, reconstruction_share": "gradient of the term over the data's or G's",
    "train_loss, train_accuracy": "retrain: means over the training images of the epoch",
    "accuracy, top5": "search: validation accuracy of the drawn network; retrain: on the test images; in [0, 1]; "
    "reid: accuracy on the last training batches, percent",
    "loss": "retrain: on the test images; else mean training loss of the epoch",
    "loss_t, loss_x": "reid: its triplet and its cross-entropy part",
    "loss_rpn_cls, loss_rpn_bbox, loss_cls, loss_bbox, loss_centerness": "detect: the parts of the detector's loss",
    "voc_map50, coco_map, coco_map50": "detect: on the test images after the epoch, in [0, 1], where it was measured",
    "map, rank1, rank5, rank10": "reid: the same",
    "lr": "learning rate of the epoch's last step",
    "images, images_seen": "training images of the epoch; since the start",
    "seconds": "wall time of the epoch",
}
"""Columns of history.csv; a comma joins columns with one explanation."""
ROUNDS = {
    "k": "operations that every edge had before this elimination",
    "tau": "Kendall's rank correlation with the indicators of the elimination before",
    "mean_margin": "mean difference between the two lowest indicators of an edge",
    "ties": "edges whose lowest indicator was shared; a seeded draw decides there",
    "signal_share, effect_share": "see `signal.csv`, for the draws since the elimination before",
    "entropy_drop": "BNAS: see `signal.csv`",
    "parameter_free_share": "share of the surviving operations without parameters",
    "collapsed": "whether the cell of the best survivors has collapsed",
    "surviving_normal, surviving_reduce": "surviving operations, edge by edge",
    "dropped_normal, dropped_reduce": "dropped operation of each edge",
}
"""Columns of rounds.csv."""
TEXT = frozenset(
    (
        *("phase", "normal", "reduce", "genotype"),
        *("surviving_normal", "surviving_reduce", "dropped_normal", "dropped_reduce"),
    )
)
"""Columns of these files that hold text; all others hold numbers."""
OTHER = {
    "timing.csv": "search, retrain: `step` or `epoch`, and `seconds` since the run began",
    "architectures.csv": "random search: `architecture`, its `accuracy` after its epochs, its `genotype`",
    "alphas.csv": "differentiable searches: the final architecture parameters, by cell, edge and operation",
}
"""Further CSV files of a record, with their columns."""
