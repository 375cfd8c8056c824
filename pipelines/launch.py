"""One stage's command as a process, and the executors that run such processes: this machine's, or a cluster's.

Any :class:`concurrent.futures.Executor` will do, since all that is asked of it is to call :func:`run_command` where the
checkout's folder is the same.
"""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from search.errors import InputError

PARENT = "STAGE_PARENT"
"""Environment variable: the process without which a stage stops (see :func:`pipelines.stage.run`)."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = Path("/dev")
_running: dict[int, subprocess.Popen[bytes]] = {}


def run_command(
    command: str,
    folder: str,
    log: str,
    threads: int,
    gpu: str | None = None,
    keep_open: tuple[int, ...] = (),
) -> int:
    """Run one command to its end; gives its exit code.

    Args:
        command: As in dvc.yaml; ``python`` is the interpreter that runs this.
        folder: Where it runs.
        log: File for all that it prints.
        threads: For OpenMP, whose threads sleep while they wait: a core that spins is lost to the other stages.
        gpu: The one that it sees, as CUDA_VISIBLE_DEVICES names it; None leaves all as they are.
        keep_open: Open files that the process holds too.
    """
    program, *arguments = shlex.split(command)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
        "PYTHONUNBUFFERED": "1",
        PARENT: str(os.getpid()),
    }
    if gpu is not None:
        environment[VISIBLE] = gpu
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable if program == "python" else program, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            start_new_session=True,  # Ctrl-C goes to the one who passes it on, once
        )
    _running[process.pid] = process
    try:
        return process.wait()
    finally:
        del _running[process.pid]


def stop_all() -> None:
    """Ask every process that :func:`run_command` started here to stop, as by Ctrl-C."""
    for process in list(_running.values()):
        process.send_signal(signal.SIGTERM)


def local(jobs: int) -> Executor:
    """This machine: a thread for each process that runs."""
    return ThreadPoolExecutor(jobs, thread_name_prefix="stage")


def slurm(jobs: int) -> Executor:
    """Slurm by dask-jobqueue (the extra ``cluster``): up to ``jobs`` jobs of one stage each, as they are needed.

    Queue, memory and wall time are those of dask-jobqueue's configuration, ``~/.config/dask/jobqueue.yaml``. The
    checkout must lie where all nodes see it.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from dask.distributed import Client
    from dask_jobqueue import SLURMCluster

    for (
        number,
        handler,
    ) in handlers.items():  # importing dask_jobqueue makes both end the program with success
        signal.signal(number, handler)
    cluster = SLURMCluster(processes=1, cores=1)
    cluster.adapt(minimum_jobs=0, maximum_jobs=jobs)
    return Client(cluster).get_executor(pure=False, retries=0)


def executor_of(name: str, jobs: int) -> Executor:
    """An executor by name.

    Args:
        name: ``local``, ``slurm``, or ``MODULE:FUNCTION`` for a function that takes the number of jobs and gives an
            executor.
        jobs: How many stages may run at once.
    """
    known: dict[str, Callable[[int], Executor]] = {"local": local, "slurm": slurm}
    module, separator, function = name.partition(":")
    if name not in known and not separator:
        raise InputError(
            f"no executor {name!r}", where="--executor", allowed=f"{', '.join(known)}, MODULE:FUNCTION"
        )
    try:
        make = known[name] if name in known else getattr(importlib.import_module(module), function)
        return make(jobs)
    except (ImportError, AttributeError) as error:
        raise InputError(
            str(error),
            where=f"--executor {name}",
            mend="pip install 'cp-nas-bench[cluster]', or name another",
        ) from None


def gpus(device: str) -> list[str]:
    """The GPUs that stages may use, one at a time each; none with ``compute.device: cpu``."""
    if device == "cpu":
        return []
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    return sorted(path.name.removeprefix("nvidia") for path in DEVICES.glob("nvidia[0-9]*"))


def log_of(folder: Path, stage: str) -> Path:
    """Where a stage's output goes."""
    return folder / f"{stage}.log"
