"""Stage programs: ``python -m pipelines.<stage>`` reads declared files and writes declared files."""

import importlib.util as _util
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
for _package in ("search", "downstream"):
    # Their names are common ones: another package may be found first, on PYTHONPATH or in the folder of the program.
    _found = _util.find_spec(_package)
    _place = _path.realpath((_found and _found.origin) or "")
    if _place != _path.join(_ROOT, _package, "__init__.py"):
        _what = (
            f"another package {_package!r} is found first, at {_place}"
            if _found
            else f"no package {_package!r}"
        )
        _line = f"{_what}; this suite's is {_path.join(_ROOT, _package)}: put {_ROOT} first on PYTHONPATH"
        if _path.basename((_sys.argv or [""])[0]) not in ("-m", "cpnas"):  # no program of ours
            raise ImportError(_line)
        print(f"error: {_line}", file=_sys.stderr)
        raise SystemExit(2)
