"""Person re-identification in Torchreid: our networks as its models, its engines, data sets and evaluator."""
