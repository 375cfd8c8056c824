"""Stages side by side in temporary repositories, with commands of a moment in place of trainings."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import slurm

ROOT = Path(__file__).parents[2]
STEP = """
import sys, time
from pathlib import Path

sys.path.insert(0, ROOT)
from pipelines import stage


def main():
    name, seconds = sys.argv[1], float(sys.argv[2])
    kept = Path("runs/.resume") / name
    done = int(kept.read_text()) if kept.exists() else 0
    with Path("journal").open("a") as journal:
        journal.write(f"{name} begin {done}\\n")
    kept.parent.mkdir(parents=True, exist_ok=True)
    for step in range(done, 10):
        print(f"{name}  {step}/10", flush=True)
        time.sleep(seconds / 10)
        kept.with_suffix(".new").write_text(str(step + 1))
        kept.with_suffix(".new").replace(kept)
    if name.startswith("bad"):
        raise SystemExit("this one cannot work")
    Path("out").mkdir(exist_ok=True)
    Path("out", name).write_text(name)
    with Path("journal").open("a") as journal:
        journal.write(f"{name} end\\n")
    kept.unlink()


if __name__ == "__main__":
    stage.run(main)
"""


def stage_text(name: str, seconds: float, needs: tuple[str, ...] = (), alone: bool = False) -> str:
    deps = "".join(f"\n      - out/{need}" for need in needs)
    return (
        f"  {name}:\n    cmd: python step.py {name} {seconds}\n    outs: [out/{name}]\n"
        + (f"    deps:{deps}\n" if needs else "")
        + ("    meta: {alone: true}\n" if alone else "")
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "step.py").write_text(STEP.replace("ROOT", repr(str(ROOT))))
    (tmp_path / "params.yaml").write_text("compute: {device: cpu, threads: 1}\n")
    (tmp_path / ".gitignore").write_text("/out\n/runs\n")
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


def graph(folder: Path, *stages: str) -> None:
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(stages))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.reproduce", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


def reproduce(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
    )


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_side_by_side_and_dvc_has_nothing_left_to_do(repository: Path) -> None:
    """Two at once, in the order of the graph; then DVC agrees, and a second run starts nothing."""
    graph(
        repository,
        stage_text("a", 1.5),
        stage_text("b", 1.5),
        stage_text("c", 0.1, ("a", "b")),
        stage_text("timed", 0.5, ("a",), alone=True),
        stage_text("d", 0.5, ("a",)),
    )
    done = reproduce(repository, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    lines = journal(repository)
    assert lines.index("b begin 0") < lines.index("a end") and lines.index("a begin 0") < lines.index("b end")
    assert lines.index("c begin 0") > max(lines.index("a end"), lines.index("b end"))
    alone = lines.index("timed begin 0")
    assert lines[alone + 1] == "timed end"  # nothing else began or ended meanwhile
    assert "5 stages run" in done.stdout and "9/10" in (repository / "runs/.logs/a.log").read_text()
    assert "up to date" in dvc(repository, "status")
    assert "up to date" in dvc(repository, "repro")
    again = reproduce(repository, "--jobs", "2")
    assert again.returncode == 0 and "0 stages run" in again.stdout
    assert journal(repository) == lines


def test_what_ran_before_is_taken_from_the_cache(repository: Path) -> None:
    graph(repository, stage_text("a", 0.1), stage_text("b", 0.1, ("a",)))
    assert reproduce(repository).returncode == 0
    before = journal(repository)
    (repository / "out/b").unlink()
    done = reproduce(repository)
    assert done.returncode == 0 and "b: found in the cache of earlier runs" in done.stdout
    assert journal(repository) == before and (repository / "out/b").read_text() == "b"


def test_a_failure_stops_what_is_built_on_it_and_nothing_else(repository: Path) -> None:
    graph(
        repository,
        stage_text("bad", 0.1),
        stage_text("on_bad", 0.1, ("bad",)),
        stage_text("a", 0.5),
        stage_text("b", 0.1, ("a",)),
    )
    done = reproduce(repository, "--jobs", "2")
    assert done.returncode == 1
    assert "bad: FAILED, this one cannot work; see runs/.logs/bad.log" in done.stdout
    assert "left out, being built on what failed: on_bad" in done.stderr
    assert "error: 1 stages failed; see runs/.logs/bad.log" in done.stderr
    assert {"a end", "b end"} <= set(journal(repository)) and "on_bad begin 0" not in journal(repository)


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_end_at_any_moment_leaves_every_stage_resumable(repository: Path, kill: signal.Signals) -> None:
    """Ctrl-C or kill -9: no stage goes on unseen, and the same command goes on from where they were."""
    graph(repository, stage_text("a", 8), stage_text("b", 8), stage_text("c", 0.1, ("a", "b")))
    with subprocess.Popen(
        command("--jobs", "2"),
        cwd=repository,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        kept = [repository / "runs/.resume" / name for name in "ab"]
        until(lambda: all(path.exists() and path.read_text().strip() not in ("", "0") for path in kept))
        process.send_signal(kill)
        process.wait(60)
    assert process.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    graph(repository, stage_text("a", 0.5), stage_text("b", 0.5), stage_text("c", 0.1, ("a", "b")))
    done = reproduce(repository, "--jobs", "2")  # waits for stages that still stop
    assert done.returncode == 0, done.stdout + done.stderr
    begun = [line for line in journal(repository) if " begin " in line]
    assert len(begun) == 5 and all(int(line.split()[-1]) > 0 for line in begun[2:4])
    assert [line for line in journal(repository) if line == "a end"] == ["a end"]


def test_one_reproduction_at_a_time(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.reproduce import exclusive
    from search.errors import InputError

    monkeypatch.chdir(repository)
    with (
        exclusive(),
        pytest.raises(InputError, match="another reproduction runs here"),
        exclusive(patience=0.3),
    ):
        pass
    with exclusive(patience=0.0):
        pass


def test_only_what_is_asked_for(repository: Path) -> None:
    graph(repository, stage_text("a", 0.1), stage_text("b", 0.1, ("a",)), stage_text("c", 0.1))
    assert reproduce(repository, "b").returncode == 0
    assert {line.split()[0] for line in journal(repository)} == {"a", "b"}
    refused = reproduce(repository, "z")
    assert refused.returncode == 2 and "no stage 'z'" in refused.stderr


def test_any_executor_will_do(repository: Path) -> None:
    """By the protocol of concurrent.futures alone: here one of processes."""
    (repository / "mine.py").write_text(
        "from concurrent.futures import ProcessPoolExecutor\n\ndef make(jobs):\n    return ProcessPoolExecutor(jobs)\n"
    )
    graph(repository, stage_text("a", 0.1), stage_text("b", 0.1, ("a",)))
    done = reproduce(repository, "--executor", "mine:make")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "up to date" in dvc(repository, "status")
    refused = reproduce(repository, "--executor", "mien:make")
    assert refused.returncode == 2 and "--executor mien:make" in refused.stderr


def test_a_stage_sleeps_while_it_waits_and_has_its_share_of_threads(tmp_path: Path) -> None:
    from pipelines.launch import run_command

    show = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])"
    assert run_command(f'python -c "{show}"', str(tmp_path), str(tmp_path / "log"), 3) == 0
    assert (tmp_path / "log").read_text() == "3 PASSIVE\n"


def test_a_terminal_shows_what_runs_and_how_far(repository: Path) -> None:
    """The stage's name, its last line, and the whole, redrawn in place."""
    graph(repository, stage_text("first", 2), stage_text("second", 0.1, ("first",)))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(), cwd=repository, env=environment(), stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other side is closed
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert re.search(r"first +0:0\d +first +[1-9]/10", text) and "0/2" in text and "1/2, about 0:0" in text
    assert "second: done" in text and "2 stages run" in text


def test_as_many_stages_as_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import launch
    from pipelines.reproduce import default_jobs

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [default_jobs(threads, 0) for threads in (1, 3, 16)] == [8, 2, 1] and default_jobs(1, 2) == 2
    monkeypatch.setattr(launch, "DEVICES", tmp_path)
    monkeypatch.delenv(launch.VISIBLE, raising=False)
    assert launch.gpus("auto") == []
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    assert launch.gpus("auto") == ["0", "1"] and launch.gpus("cpu") == []
    monkeypatch.setenv(launch.VISIBLE, "3,5")
    assert launch.gpus("cuda") == ["3", "5"]


def test_stages_are_spread_over_the_gpus(repository: Path) -> None:
    """Each sees one; the machine need not have them to be told."""
    show = "    cmd: python show.py {0}\n    outs: [out/{0}]\n"
    (repository / "show.py").write_text(
        "import os, sys, time\nfrom pathlib import Path\nPath('out').mkdir(exist_ok=True)\ntime.sleep(1)\n"
        "Path('out', sys.argv[1]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    (repository / "params.yaml").write_text("compute: {device: cuda, threads: 1}\n")
    graph(repository, *(f"  {name}:\n{show.format(name)}" for name in ("a", "b")))
    done = subprocess.run(
        command(),
        cwd=repository,
        env=environment() | {"CUDA_VISIBLE_DEVICES": "3,5"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "2 at once" in done.stdout
    assert {(repository / "out" / name).read_text() for name in ("a", "b")} == {"3", "5"}


@pytest.mark.slow
def test_stages_as_jobs_of_slurm(repository: Path) -> None:
    """Two nodes, one command; Ctrl-C ends the jobs, and the same command goes on from where they were."""
    pytest.importorskip("dask_jobqueue", reason="the extra 'cluster' is not installed")
    folder = repository.parent / f"{repository.name}-slurm"
    folder.mkdir()
    names = ("a", "b", "c", "d")
    graph(repository, *(stage_text(name, 40) for name in names), stage_text("last", 0.1, names))
    kept = [repository / "runs/.resume" / name for name in names]
    try:
        with slurm.cluster(folder) as reached:
            settings = {"MEMORY": "1GB", "JOB_MEM": "0", "WALLTIME": "00:10:00"}
            chosen = environment() | reached | {f"DASK_JOBQUEUE__SLURM__{k}": v for k, v in settings.items()}
            chosen["PYTHONPATH"] = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
            asked = command("--executor", "slurm", "--jobs", "4")
            with subprocess.Popen(asked, cwd=repository, env=chosen) as process:
                until(lambda: all(path.exists() for path in kept), 120)
                nodes = subprocess.run(
                    ["squeue", "--noheader", "--states=R", "--format=%N"],
                    env=chosen,
                    capture_output=True,
                    text=True,
                )
                process.send_signal(signal.SIGINT)
            assert process.returncode == 130
            assert set(nodes.stdout.split()) == {"node1", "node2"}
            graph(repository, *(stage_text(name, 1) for name in names), stage_text("last", 0.1, names))
            done = subprocess.run(
                asked, cwd=repository, env=chosen, capture_output=True, text=True, timeout=180
            )
            assert done.returncode == 0, done.stdout + done.stderr
    except slurm.NoSlurm as why:
        pytest.skip(str(why))
    again = [line for line in journal(repository) if " begin " in line][4:8]
    assert len(again) == 4 and all(int(line.split()[-1]) > 0 for line in again)
    assert "up to date" in dvc(repository, "status")
