"""Compares gradients with float64, each kind of layer, layout and number of threads in a process of its own.

``python gradients_worker.py suite|library CHANNELS [LAYER]``, channels as ``1-64`` or ``1,4,12``. A kernel that is
wrong may kill its process or hang, so every width is printed before it runs; a process that ends well says ``done``.
"""

from __future__ import annotations

import os
import sys
import time

import torch

from search.convolution import conv2d
from search.gradients import LAYERS, TOLERANCE, Case

LIMIT = 60.0
"""Seconds for one process."""


def compare(cases: list[Case], channels: list[int], last: bool, threads: int, library: bool) -> None:
    """In a forked process: every width, said before it runs."""
    torch.set_num_threads(threads)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for case, width in zip(cases, channels, strict=True):
        print(
            f"{case.layer.name}, {'last' if last else 'contiguous'}, {threads} threads, C = {width}:",
            end=" ",
            flush=True,
        )
        difference = case.difference(last, torch.nn.functional.conv2d if library else conv2d)
        print(f"{difference:.2g}{'' if difference <= TOLERANCE else ' WRONG'}", flush=True)
    print("done", flush=True)


def main() -> None:
    """Fork and wait; a process that outlives its limit is said to hang."""
    library, text = sys.argv[1] == "library", sys.argv[2]
    first, _, last_width = text.partition("-")
    channels = (
        list(range(int(first), int(last_width) + 1)) if last_width else [int(c) for c in text.split(",")]
    )
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    for layer in LAYERS:
        if sys.argv[3:] and layer.name != sys.argv[3]:
            continue
        cases = [Case.draw(layer, width) for width in channels]
        for last in (True, False):
            for threads in (1, 2):
                sys.stdout.flush()
                child = os.fork()
                if child == 0:
                    compare(cases, channels, last, threads, library)
                    os._exit(0)
                wait(child)


def wait(child: int) -> None:
    """Say how a process ended where it did not end well."""
    began = time.monotonic()
    while time.monotonic() - began < LIMIT:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if code := os.waitstatus_to_exitcode(status):
                print(f"DIED {code}", flush=True)
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    print("HANGS", flush=True)


if __name__ == "__main__":
    main()
