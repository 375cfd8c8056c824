from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import stage
from search.errors import InputError
from search.files import atomic, read_json, write_csv, write_json


def _run(main) -> int:
    with pytest.raises(SystemExit) as end:
        stage.run(main)
    return int(end.value.code or 0)


def test_success_is_0() -> None:
    assert _run(lambda: None) == 0


def test_bad_input_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise InputError(
            "unknown key 'beta'\nfor real", where="params.yaml", allowed="beta_p", mend="rename it"
        )

    assert _run(main) == 2
    assert capsys.readouterr().err == (
        "error: params.yaml: unknown key 'beta' for real; allowed: beta_p; rename it\n"
    )


def test_a_full_disk_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")

    assert _run(main) == 2
    assert "runs/x: the disk is full" in capsys.readouterr().err


def test_a_really_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    def main() -> None:
        with open("/dev/full", "w") as stream:
            stream.write("x")
            stream.flush()

    assert _run(main) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_our_bugs_keep_their_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.run(main)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_130_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    code = """
import signal, sys, time
from pathlib import Path
from pipelines import stage

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored

def main():
    with stage.output_folder(Path(sys.argv[1]) / "result") as folder:
        (folder / "metrics.json").write_text("{}")
        print("writing", flush=True)
        time.sleep(60)

stage.run(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.startswith("error: interrupted") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_pool_of_worker_processes_ends_quietly() -> None:
    """Libraries stop their workers by SIGTERM: that is no interrupt of the program."""
    code = """
import multiprocessing
from pipelines import stage

def main():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(sum(pool.map(abs, range(-4, 0))))

stage.run(main)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "10\n", "")


def test_output_folder_replaces_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with stage.output_folder(target) as folder:
        write_json(folder / "a.json", 1)
    with pytest.raises(RuntimeError), stage.output_folder(target) as folder:
        write_json(folder / "b.json", 2)
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a.json"]
    with stage.output_folder(target) as folder:
        write_json(folder / "b.json", 2)
    assert [path.name for path in target.iterdir()] == ["b.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_atomic_keeps_the_old_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_csv_floats_read_back_to_the_same_bits(tmp_path: Path) -> None:
    from search.files import read_csv

    value = 0.1 + 0.2
    write_csv(tmp_path / "t.csv", [{"a": value, "b": None}, {"a": 1, "c": "x"}])
    rows = read_csv(tmp_path / "t.csv")
    assert float(rows[0]["a"]) == value
    assert rows[0]["b"] == "" and rows[1]["c"] == "x"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ELOOP, errno.ESTALE, errno.EMFILE])
def test_a_folder_that_may_not_be_used_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def main() -> None:
        raise OSError(number, os.strerror(number), "runs/search")

    assert _run(main) == 2
    message = capsys.readouterr().err
    assert message == f"error: runs/search: {stage.REASONS[number]}\n"
    assert message.count("\n") == 1


def test_really_no_folder_to_write_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file lies where the folder should be; and, where the user is not root, a folder without leave to write."""
    (tmp_path / "runs").write_text("")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    targets = [tmp_path / "runs/search/x"] + ([] if os.access(locked, os.W_OK) else [locked / "x"])
    for target in targets:

        def main(target: Path = target) -> None:
            with stage.output_folder(target):
                pytest.fail("there is no such folder")

        assert _run(main) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {tmp_path}") and message.count("\n") == 1


def test_a_missing_file_of_ours_keeps_its_traceback() -> None:
    def main() -> None:
        Path("nowhere").read_text()

    with pytest.raises(FileNotFoundError):
        stage.run(main)


@pytest.mark.parametrize("folder", ["pipelines", "search", "search/strategies", "downstream"])
def test_a_program_started_inside_a_package_says_where_to_start_it(folder: str) -> None:
    """Python looks into the working folder first: there `import search` would be pipelines/search.py."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.prepare", "reid"],
        cwd=root / folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {root / folder}: ") and done.stderr.count("\n") == 1
    assert f"start it in {root}" in done.stderr


def test_a_user_without_a_home_is_told_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container started with another user's number: no HOME, no entry in /etc/passwd."""
    import pwd

    from search.files import user_cache

    def nobody(_number: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(InputError, match="no home folder for the cache; set XDG_CACHE_HOME"):
        user_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/mine")
    assert user_cache() == Path("/var/cache/mine/cp-nas-bench")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "not valid JSON"),
        (b'{"a": "\xfc"}', "not valid JSON"),
        (b"\x80\x02}q\x00.", "not valid JSON"),
    ],
)
def test_json_that_is_none_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(InputError, match="symbolic links"):
        read_json(path)


def test_json_with_a_mark_is_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes('{"a": "ü"}'.encode(encoding))
        assert read_json(path) == {"a": "ü"}
