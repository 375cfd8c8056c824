from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tools import build_mmcv


def test_wheels_are_kept_apart_by_torch_and_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = build_mmcv.wheel_folder()
    assert folder.is_relative_to(tmp_path)
    assert torch.__version__ in folder.name
    assert "cpython-3" in folder.name
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert build_mmcv.wheel_folder() != folder


def test_a_missing_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("sys.argv", ["build_mmcv.py"])
    with pytest.raises(SystemExit, match=r"error: no-such-compiler is missing; install g\+\+ \(or set CXX\)"):
        build_mmcv.main()
    assert not list(tmp_path.rglob("*.whl"))


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_failing_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "c++ --no-such-option")
    monkeypatch.setattr("sys.argv", ["build_mmcv.py"])
    with pytest.raises(SystemExit, match=r"error: c\+\+ failed, see above"):
        build_mmcv.main()
