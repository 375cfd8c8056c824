"""What records say of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.machine import instructions, onednn

ROOT = Path(__file__).parents[2]


def test_instructions_are_named() -> None:
    found = instructions()
    assert found["aten"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu_features"] == sorted(found["cpu_features"]) and found["cpu_features"]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_the_library_is_asked_for_its_instruction_set(capfd: pytest.CaptureFixture[str]) -> None:
    found = onednn()
    assert found is not None and found["version"].startswith("v3.") and found["isa"] != "not said"
    assert capfd.readouterr().out == "", "nothing of it reaches the terminal"


@pytest.mark.skipif("avx2" not in torch.cpu.get_capabilities(), reason="names of x86's instruction sets")
def test_a_limit_of_the_instruction_set_is_recorded() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from pipelines.machine import onednn; print(onednn()['isa'])"],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "SSE41", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "Intel SSE4.1"
