"""A private Slurm cluster of two nodes on this machine, for tests that start processes by the real ``srun``."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "srun", "sinfo")
NODES = ("node1", "node2")
"""Both are this machine, and no name server knows them: MASTER_ADDR says where the processes meet."""
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurm(Exception):
    """Why there is no cluster here."""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start controller and nodes; gives the environment in which ``srun`` reaches them, and stops them.

    Raises:
        NoSlurm: If Slurm's programs are missing, or do not come up without authentication (auth/none).
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        raise NoSlurm(f"Slurm is not installed here ({', '.join(missing)})")
    controller, first, second = _free_ports()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname(),
            user=getpass.getuser(),
            folder=folder,
            controller=controller,
            first=first,
            second=second,
        )
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment = inherited | {
        "MASTER_ADDR": "127.0.0.1",
        "PATH": path,
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    commands = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            daemons.append(
                subprocess.Popen(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)


def _free_ports() -> tuple[int, int, int]:
    """Three ports of this machine that follow each other, as Slurm's configuration wants them."""
    for first in range(20000, 30000, 3):
        with ExitStack() as taken:
            try:
                for port in range(first, first + 3):
                    taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first, first + 1, first + 2
    raise NoSlurm("this machine has no three free ports in a row")


def _wait_until_idle(environment: dict[str, str], folder: Path, seconds: float = 20.0) -> None:
    """Until both nodes take jobs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%t"], env=environment, capture_output=True, text=True
        )
        if states.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.2)
    log = folder / "slurmctld.log"
    last = log.read_text().splitlines()[-1:] if log.exists() else []
    raise NoSlurm(f"a private Slurm cluster did not start: {' '.join(last) or states.stderr.strip()}")
