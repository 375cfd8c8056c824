"""Stage ``search``: one method or variant of it, one seed."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from pipelines import code, stage
from pipelines.record import dataset_of, write_record
from search.files import write_csv
from search.manifest import read_manifest

RESUME = Path("runs/.resume")


def main() -> None:
    """Search and write ``runs/search/<method>-s<seed>/``."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.search", description=__doc__)
    parser.add_argument("--method", required=True, help="an entry of search.method, such as cp_nas")
    parser.add_argument("--seed", required=True, type=int, help="the search's seed")
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="prepared CIFAR-10")
    parser.add_argument("--output", type=Path, help="default runs/search/<method>-s<seed>")
    arguments = parser.parse_args()
    from pipelines import params
    from search.data import load_cifar10
    from search.gradients import require_right_gradients
    from search.run import run_search
    from search.training import set_up

    started = time.time()
    settings = params.load()
    if arguments.method in settings.search.method:  # an unknown one is refused by the search itself
        method = settings.search.method[arguments.method].method
        code.check(f"search.{arguments.method}", code.of_method(method))
    manifest = read_manifest(arguments.data)
    key = f"{arguments.method}-s{arguments.seed}"
    output = arguments.output or Path("runs/search") / key
    fabric = set_up(settings.compute, arguments.seed)
    require_right_gradients(fabric.device)
    run = run_search(
        fabric,
        arguments.method,
        settings.search,
        arguments.seed,
        load_cifar10(arguments.data, "train"),
        resume_root=RESUME,
        data_hash=manifest["sha256"],
    )
    if not fabric.is_global_zero:
        return
    variant = settings.search.method[arguments.method]
    space = settings.search.space_of(arguments.method)
    with stage.output_folder(output) as folder:
        write_record(
            folder,
            run={
                "stage": "search",
                "key": key,
                "network": key,
                "method": variant.method,
                "variant": arguments.method,
                "precision": "1bit" if space.binary else "real",
                "form": space.form,
                "seed": arguments.seed,
                "task": "search",
                "dataset": dataset_of(
                    manifest, train_images=space.train_images, validation_images=space.validation_images
                ),
                "paper_scale": settings.paper_scale,
                "architecture_hash": None,
                "genotype_hash": run.result.genotype.hash,
            },
            metrics={
                "val_accuracy": run.result.validation_accuracy,
                "epochs": run.budget.epochs,
                "images_seen": run.budget.images_seen,
                "images_evaluated": run.budget.images_evaluated,
                "seconds": round(run.seconds, 3),
                "peak_memory_mib": round(run.peak_memory_mib, 1),
                **{name: value for name, value in run.result.metrics.items() if value is not None},
            },
            params={
                "space": space.model_dump(),
                "method": {variant.method: variant.settings.model_dump()},
            },
            started=started,
            seeds=[arguments.seed, space.split_seed],
            data={manifest["name"]: manifest["sha256"]},
            history=run.history,
            genotype=run.result.genotype,
        )
        write_csv(folder / "timing.csv", run.timing)
        for name, rows in run.result.tables.items():
            write_csv(folder / name, rows)
    run.resume.remove()


if __name__ == "__main__":
    stage.run(main)
