"""What every stage program shares: one clear line for bad input, and an output folder that is whole or absent."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from pipelines.launch import PARENT
from pipelines.provenance import code_at_start
from search.errors import InputError

BAD_INPUT = 2
INTERRUPTED = 130
PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
FULL = "the disk is full; free some space and run again"
LOG = "CP_NAS_LOG"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORBIDDEN = (
    "may not be used by this user; run it as one who may read and write there, or in a folder of yours"
)
REASONS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: FORBIDDEN,
    errno.EPERM: FORBIDDEN,
    errno.EROFS: "lies on a disk that is read-only; run it in a folder that may be written",
    errno.EISDIR: "is a folder, a file was expected",
    errno.ENOTDIR: "has a file where a folder was expected; move it away",
    errno.ELOOP: "is a link that leads to itself; remove it",
    errno.ENAMETOOLONG: "is too long a name",
    errno.EIO: "cannot be read or written, its disk does not answer",
    errno.ESTALE: "lies on a network disk that was lost; mount it again",
    errno.EMFILE: "cannot be opened beside so many open files; raise `ulimit -n`, or set fewer workers",
}
"""What is the machine's fault and not ours, and what to do about it."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run a stage program and end the process.

    Exit codes: 0 success; 2 bad input, a full disk or a folder that may not be used, with one line on stderr; 130
    interrupted by Ctrl-C or SIGTERM. Anything else is a bug of ours and keeps its traceback.
    """
    messages()
    signal.signal(signal.SIGTERM, _as_interrupt)
    # worker processes that a library forks are stopped by SIGTERM: for them it must keep its meaning
    os.register_at_fork(after_in_child=_forget)
    try:
        _end_with_parent()
        code_at_start()
        main()
    except InputError as error:
        _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept, the same command goes on from there", INTERRUPTED)
    except OSError as error:
        if (reason := REASONS.get(error.errno or 0)) is None:
            raise
        _fail(f"{error.filename or 'a file'}: {reason}", BAD_INPUT)
    sys.exit(0)


def _end_with_parent() -> None:
    """Be interrupted when the process that runs the stages is gone, kill -9 included: none goes on unseen."""
    parent = os.environ.pop(PARENT, None)  # not for programs that a stage starts
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it went before we asked
        raise KeyboardInterrupt


def messages() -> None:
    """Progress and notes of the suite go to stderr, unless the caller has set up logging; results go to stdout.

    ``CP_NAS_LOG=warning`` (as ``cpnas --quiet`` sets it) leaves progress and notes out.
    """
    level = os.environ.get(LOG, "info").upper()
    if level not in LEVELS:
        _fail(f"{LOG} is {level.lower()!r}; allowed: {', '.join(LEVELS).lower()}", BAD_INPUT)
    # on a cluster's login node: which tasks were started is checked in search.training
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    logger = logging.getLogger("cp_nas")
    logger.setLevel(level)
    if not logger.handlers:
        logger.addHandler(_Stderr())


class _Stderr(logging.Handler):
    """A line on whatever ``sys.stderr`` is when it is written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message alone."""
        print(self.format(record), file=sys.stderr, flush=True)


def _as_interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _forget() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


@contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` when the block succeeds.

    An older ``path`` is replaced only then, so that an interrupted stage never leaves a folder that looks
    like a result.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
