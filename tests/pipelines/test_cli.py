"""``cpnas``: the programs under one name, light before the command is known; what goes to stdout and what to stderr."""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines import cli, layers, stage

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "torchvision",
    "lightning_fabric",
    "sympy",
    "scipy",
    "matplotlib",
    "dvc",
    "mmengine",
    "torchreid",
)


def cpnas(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


PROGRAMS = (
    "prepare",
    "search",
    "derive",
    "retrain",
    "evaluate",
    "detect",
    "reid",
    "reproduce",
    "collect",
    "bench",
)
LIGHT = [["--help"], ["--version"], ["profile", "list"], ["serch"], *([name, "--help"] for name in PROGRAMS)]


@pytest.mark.parametrize("arguments", LIGHT)
def test_light_commands_answer_at_once(arguments: list[str]) -> None:
    """Below a second of CPU: none of the heavy packages is imported to print names."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cpnas(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert done.returncode == (2 if arguments == ["serch"] else 0)
    code = f"import sys\nfrom pipelines import cli\ntry:\n    cli.main({arguments!r})\nexcept SystemExit:\n    pass\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert modules.stderr.splitlines()[-1] == "[]"


def test_names_versions_and_slips() -> None:
    help_text = cpnas("--help").stdout
    assert all(f"  {name} " in help_text for name in cli.COMMANDS)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert cpnas("--version").stdout == f"cpnas {version}\n"
    assert cpnas("profile", "list").stdout.split() == layers.names()
    assert cpnas("serch").stderr.startswith("error: no command 'serch', did you mean 'search'?; allowed: ")
    assert cpnas().stdout == help_text


def test_every_command_is_a_program_and_the_script_is_declared() -> None:
    for name in cli.COMMANDS:
        assert callable(importlib.import_module(f"pipelines.{name}").main)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"cpnas": "pipelines.cli:main"}


def test_bad_input_and_exit_codes_are_the_programs_own(tmp_path: Path) -> None:
    done = cpnas("profile", "use", "qick")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no profile 'qick', did you mean 'quick'?")
    assert cpnas("profile", "list", CP_NAS_LOG="loud").stderr == (
        "error: CP_NAS_LOG is 'loud'; allowed: debug, info, warning, error\n"
    )


def test_json_stands_alone_on_stdout() -> None:
    done = cpnas("cost", "bi-real-18", "--channels", "4", "--json")
    assert done.returncode == 0 and isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize(
    ("level", "lines"), [("info", "note\nwarning\n"), ("warning", "warning\n"), ("error", "")]
)
def test_progress_and_notes_can_be_turned_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, lines: str
) -> None:
    logger = logging.getLogger("cp_nas")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setenv("CP_NAS_LOG", level)
    before = logger.level
    try:
        stage.messages()
        logging.getLogger("cp_nas.progress").info("note")
        logging.getLogger("cp_nas.weights").warning("warning")
    finally:
        logger.setLevel(before)
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", lines)
