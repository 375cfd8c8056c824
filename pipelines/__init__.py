"""Stage programs: ``python -m pipelines.<stage>`` reads declared files and writes declared files."""

import logging as _logging
import os.path as _path
import sys as _sys

# What Matplotlib says of its cache of fonts is none of a user's business who trains.
_logging.getLogger("matplotlib").setLevel(_logging.ERROR)

_ROOT = _path.dirname(_path.dirname(_path.realpath(__file__)))
_START = _path.realpath(_sys.path[0] if _sys.path else "")
if any(f"{_START}/".startswith(f"{_ROOT}/{package}/") for package in ("pipelines", "search", "downstream")):
    # Python looks for modules there first: `import search` would find pipelines/search.py.
    print(
        f"error: {_START}: a program started here takes files of this folder for other modules; "
        f"start it in {_ROOT}, or in a folder of yours with a params.yaml",
        file=_sys.stderr,
    )
    raise SystemExit(2)
