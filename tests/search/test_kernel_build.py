"""Building and choosing native libraries: current ones are kept, changed sources build anew, errors are told."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from search.errors import InputError
from search.kernels import build
from search.kernels.build import FORCED, PORTABLE, VARIANTS, BuildError, Library, Variant

SOURCE = "double half(double x) { return x / 2; }\n"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(build, "folders", lambda: [tmp_path / "first", tmp_path / "second"])
    monkeypatch.delenv(FORCED, raising=False)
    source = tmp_path / "half.c"
    source.write_text(SOURCE)
    return Library("half", (source,))


def half(loaded: ctypes.CDLL) -> float:
    loaded.half.argtypes, loaded.half.restype = [ctypes.c_double], ctypes.c_double
    return float(loaded.half(3.0))


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.runs_here], ids=lambda v: v.name)
def test_every_variant_of_this_cpu_is_built_and_runs(library: Library, variant: Variant) -> None:
    assert half(library.load(variant)) == 1.5


def test_a_current_library_is_left_alone_and_a_changed_source_builds_anew(library: Library) -> None:
    first = library.built(PORTABLE)
    stamp = first.stat().st_mtime_ns
    assert library.built(PORTABLE) == first and first.stat().st_mtime_ns == stamp
    library.sources[0].write_text(SOURCE.replace("2", "4"))
    second = library.built(PORTABLE)
    assert second != first and second.exists() and not first.exists()
    assert half(library.load(PORTABLE)) == 0.75


def test_a_changed_header_builds_anew(library: Library, tmp_path: Path) -> None:
    header = tmp_path / "half.h"
    header.write_text("/* one */")
    with_header = Library("half", library.sources, (header,))
    before = with_header.path(PORTABLE, tmp_path)
    header.write_text("/* two */")
    assert with_header.path(PORTABLE, tmp_path) != before


def test_a_source_that_does_not_compile_leaves_nothing(library: Library) -> None:
    library.sources[0].write_text("double half(\n")
    with pytest.raises(BuildError, match="error: "):
        library.built(PORTABLE)
    assert not any(build.folders()[0].iterdir())


def test_without_a_compiler_a_library_that_is_there_still_loads(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.built(PORTABLE)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert half(library.load(PORTABLE)) == 1.5
    library.sources[0].write_text(SOURCE + "/* changed */")
    with pytest.raises(BuildError, match="no C compiler"):
        library.load(PORTABLE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_package_folder_that_cannot_be_written_gives_way_to_the_cache(library: Library) -> None:
    first, second = build.folders()
    first.mkdir(mode=0o555)
    assert library.built(PORTABLE).parent == second


def test_the_best_variant_is_chosen_or_the_forced_one(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.choose() == next(v for v in VARIANTS if v.runs_here)
    monkeypatch.setenv(FORCED, "portable")
    assert library.choose() == PORTABLE
    monkeypatch.setenv(FORCED, "portabel")
    with pytest.raises(InputError, match="did you mean 'portable'"):
        library.choose()


def test_a_variant_that_the_cpu_lacks_is_not_chosen(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "cpu_features", lambda: frozenset({"avx2", "popcnt", "bmi2"}))
    assert library.choose().name == "avx2"
    monkeypatch.setenv(FORCED, "avx512")
    with pytest.raises(InputError, match="allowed: avx2, portable"):
        library.choose()


def test_the_program_says_what_it_cannot_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(libraries: object) -> list[Path]:
        raise BuildError("no C compiler (gcc) is installed")

    monkeypatch.setattr(build, "build_all", refuse)
    assert build.main([]) == 0
    assert "plain PyTorch runs instead: no C compiler" in capsys.readouterr().err
