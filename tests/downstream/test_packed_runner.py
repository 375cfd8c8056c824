"""The program without Python: built by the command of docs/packed.md, on this CPU and on an emulated ARM."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from downstream.models import build
from downstream.packed import Packed, pack, save
from tests.downstream.packed_reference import randomise

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, Path]:
    torch.manual_seed(0)
    network = pack(randomise(build("DDPNAS_MCN_2", channels=8, cells=4), 0))
    path = tmp_path_factory.mktemp("packed") / "network.safetensors"
    save(path, network)
    return network, path


def _build(compiler: str, out: Path, *extra: str) -> None:
    """The command of the documentation, by ``compiler``."""
    text = (ROOT / "docs" / "packed.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("gcc "))
    words = [word for word in shlex.split(command)[1:-1] if extra == () or word != "-march=native"]
    sources = [str(path) for path in sorted(ROOT.glob("downstream/packed/csrc/*.c"))]
    words = [part for word in words for part in (sources if word.endswith("*.c") else [word])]
    subprocess.run([compiler, *extra, *words, str(out)], check=True, cwd=ROOT)


def _same(command: list[str], packed: Packed, path: Path, variant: str) -> None:
    x = torch.randn(2, 3, 35, 32, generator=torch.Generator().manual_seed(0))
    for output in ("logits", "stride4"):
        words = [*command, str(path), output, "35", "32"]
        done = subprocess.run(words, input=x.numpy().tobytes(), capture_output=True, check=True)
        expected = packed.outputs(x, [output])[0].numpy()
        assert np.array_equal(np.frombuffer(done.stdout, np.float32), expected.ravel())
        assert variant in done.stderr.decode() and "2 images" in done.stderr.decode()


def test_the_runner_gives_the_same_bits(packed: tuple[Packed, Path], tmp_path: Path) -> None:
    _build("gcc", tmp_path / "packed-run")
    _same([str(tmp_path / "packed-run")], *packed, "")
    for words, message in (
        (["missing", "logits", "32", "32"], "no such file"),
        ([str(packed[1]), "nothing", "32", "32"], "no output nothing"),
        ([str(packed[1]), "logits", "0", "32"], "no size"),
        ([str(ROOT / "README.md"), "logits", "32", "32"], "no packed network"),
    ):
        done = subprocess.run(
            [str(tmp_path / "packed-run"), *words], capture_output=True, text=True, input=""
        )
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_neon_gives_the_same_bits(packed: tuple[Packed, Path], tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip(
            "needs aarch64-linux-gnu-gcc and qemu-aarch64-static (Debian: gcc-aarch64-linux-gnu, qemu-user-static)"
        )
    _build(compiler, tmp_path / "packed-run", "-static")
    _same([emulator, str(tmp_path / "packed-run")], *packed, "NEON")
