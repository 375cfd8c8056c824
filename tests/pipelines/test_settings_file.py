"""params.yaml as people save it: other encodings, numbers as DVC writes them, keys twice, too much of everything."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from pipelines import layers, params, settings_file
from search.errors import InputError

QUICK = layers.values_of("quick")
TEXT = layers.path_of("quick").read_text()


def refused(path: Path, content: bytes | None = None) -> str:
    """The one line that refuses a file."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        params.load(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 500 + len(str(path))
    return message


def test_a_mark_at_the_start_of_utf_8_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(TEXT.encode("utf-8-sig"))
    assert params.load(path) == layers.load("quick")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("utf-16"), "is not UTF-8 text (UTF-16); save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-32"), "UTF-16"),
        (("# a\n# für den Versuch\n" + TEXT).encode("latin-1"), "byte 0xfc in line 2"),
        (f"profile: 数据\n{TEXT}".encode("gb2312"), "in line 1"),
        (b"profile: \x07\n", "special characters are not allowed"),
        (b"", "holds no mapping"),
        (b"a: 1\n---\nb: 2\n", "expected a single document"),
        (b"a: {b: 1\n", "not valid YAML in line 2"),
        (b"a:\n\t- 1\n", "not valid YAML in line 2"),
        (b"a: !!python/object/apply:os.system [ls]\n", "python/object/apply:os.system"),
        (b"a: " + b"9" * 5000, "line 1: a number of 5000 digits"),
        (b"a: 0x" + b"f" * 5000, "line 1: a number of 5002 digits"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "line 1: more than 20 levels of nesting"),
        (b"a: " + b"{b: " * 500 + b"1" + b"}" * 500, "line 1: more than 20 levels of nesting"),
        (b"\n".join(b" " * i + b"a:" for i in range(200)), "more than 20 levels of nesting"),
        (b"? [a, b]\n: 1\n", "line 1: a key must be a word"),
        (b"a: &a [*a]\n", "inside of its own anchor"),
        (b"a: &a {b: *a}\n", "inside of its own anchor"),
        (
            b"\n".join(
                b"k%d: &k%d [%s]" % (i, i, b", ".join([b"*k%d" % (i - 1) if i else b"x"] * 10))
                for i in range(9)
            ),
            "more than 100000 values",
        ),
        (b"#" * 2**21, "larger than 1 MiB"),
    ],
)
def test_what_is_no_settings_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(tmp_path / "params.yaml", content)


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    folder, loop, pipe = tmp_path / "params.yaml", tmp_path / "loop.yaml", tmp_path / "pipe.yaml"
    folder.mkdir()
    assert "is a folder" in refused(folder)
    loop.symlink_to(loop)
    assert "cannot be read (Too many levels of symbolic links)" in refused(loop)
    os.mkfifo(pipe)
    assert "is no ordinary file" in refused(pipe)
    assert "no such file; run: python -m pipelines.profile use quick" in refused(tmp_path / "none.yaml")


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    """The field's case: PyYAML takes the last one and says nothing."""
    path = tmp_path / "params.yaml"
    text = TEXT.replace("\n  epochs: 60\n", "\n  epochs: 60\n  epochs: 7\n", 1)
    line = text[: text.index("  epochs: 60")].count("\n") + 1
    expected = f"not valid YAML in line {line + 1}: the key 'epochs' stands twice, first in line {line}"
    assert expected in refused(path, text.encode())
    assert "the key 'a' stands twice" in refused(path, b"a: 1\nb: {c: [{a: 1, a: 1}]}\n")
    assert "the key 'a' stands twice" in refused(path, b"a: 1\n'a': 1\n")


NUMBERS = (
    "1e-06",
    "1e-3",
    "1E5",
    "-2.5e+3",
    ".5",
    "1.",
    "010",
    "0o17",
    "0x1F",
    "+1",
    "-0",
    "08",
    ".inf",
    "-.INF",
)
WORDS = (
    "yes",
    "no",
    "on",
    "off",
    "1:30",
    "1e",
    "e3",
    "1.5.2",
    "~",
    "null",
    "",
    "true",
    "False",
    "'1e-3'",
    "1-2",
)


@pytest.mark.parametrize("text", NUMBERS + WORDS)
def test_scalars_are_read_as_dvc_reads_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"a: {text}\n")
    ours, dvcs = settings_file.read(path)["a"], YAML(typ="safe").load(path.read_text())["a"]
    assert ours == dvcs and type(ours) is type(dvcs)
    assert isinstance(ours, int | float) == (text in (*NUMBERS, "true", "False"))


@pytest.mark.parametrize("text", ["1e-3", "1e-06", "1E-6", "0.000001"])
def test_scientific_numbers_are_numbers(tmp_path: Path, text: str) -> None:
    """What people type, and what `dvc exp run -S retrain.cifar10.loss.kernel_weight=0.000001` writes."""
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("kernel_weight: 0.1,", f"kernel_weight: {text},", 1))
    assert params.load(path).retrain.cifar10.loss.kernel_weight == float(text)


def test_what_dvc_writes_into_params_is_read(tmp_path: Path) -> None:
    """DVC's own way of `exp run -S`: its reader, the changed value, its writer."""
    from dvc.utils.serialize import modify_yaml

    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    for value in (0.000001, 1e-12, 2.5e-7):
        with modify_yaml(str(path)) as values:
            values["retrain"]["cifar10"]["loss"]["kernel_weight"] = value
        assert params.load(path).retrain.cifar10.loss.kernel_weight == value


def test_a_profile_that_is_written_reads_back(tmp_path: Path) -> None:
    """Text that looks like a number stays text, numbers stay numbers."""
    from pipelines.profile import _Plain

    values = {"a": "1e-06", "b": 1e-06, "c": "010", "d": "yes", "e": "null", "f": [1e-3, "1e-3"], "g": True}
    path = tmp_path / "x.yaml"
    path.write_text(yaml.dump(values, Dumper=_Plain, default_flow_style=None))
    assert settings_file.read(path) == values


def changed(place: str, value: object) -> dict[str, Any]:
    values = copy.deepcopy(QUICK)
    section: Any = values
    *parents, last = (int(part) if part.isdigit() else part for part in place.split("."))
    for key in parents:
        section = section[key]
    section[last] = value
    return values


def numbers(values: Any, place: str = "") -> list[tuple[str, float]]:
    """Every number of a params file with its place."""
    if isinstance(values, bool) or values is None or isinstance(values, str):
        return []
    if isinstance(values, int | float):
        return [(place[1:], values)]
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return [found for key, value in items for found in numbers(value, f"{place}.{key}")]


MEANT: dict[str, list[Any]] = {
    "pad_value": [-1],  # one of the three values that it may have
    "data.detection.smallest_side": [None],  # the stand-ins have none: only VOC and COCO need it
}
"""What settings take although it is no sense for a number elsewhere, by the end of their place."""


@pytest.mark.parametrize(("place", "value"), numbers(QUICK))
def test_no_number_is_out_of_all_sense(place: str, value: float) -> None:
    """Every number of a params file refuses what no experiment can mean, with its place."""
    meant = next((values for end, values in MEANT.items() if place.endswith(end)), [])
    for right in meant:
        params.check(changed(place, right), "params.yaml")
    for wrong in (-1, 2**200, 1e308, float("inf"), float("nan"), "1", None, [1], {"a": 1}):
        if wrong in meant:
            continue
        with pytest.raises(InputError) as error:
            params.check(changed(place, wrong), "params.yaml")
        assert place in str(error.value) or place.rsplit(".", 1)[0] in str(error.value), error.value
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("detection.proposals", [-1, 100]),
        ("detection.proposals", [100]),
        ("detection.steps", [-2]),
        ("detection.steps", [3, 2]),
        ("detection.steps", [2, 2]),
        ("detection.test_scale", [1, 1]),
        ("detection.test_scale", 1),
        ("detection.train_scales", []),
        ("detection.train_scales", [[160]]),
        ("detection.workers", 10**6),
        ("reid.steps", [0]),
        ("reid.steps", "40"),
        ("compute.threads", 0),
        ("compute.threads", 10**6),
        ("search.seeds", [0, 0]),
        ("search.seeds", []),
        ("search.seeds", "01"),
        ("search.methods", ["cp_nas", "cp_nas"]),
        ("search.method.cp_nas", {"method": ["cp_nas"]}),
        ("search.method.cp_nas", [1]),
        ("search.method.cp_nas.space", {"channels": [1]}),
        ("search.method.cp_nas.space", [1]),
        ("search.method.cp_nas.space", {1: 2}),
        ("search.method", []),
        ("search.method", None),
        ("search", "cp_nas"),
        ("runs", None),
        ("runs.adopted", "resnet-18"),
        ("runs.adopted", {"resnet-18": 1}),
        ("runs.cifar10.precisions", ["2bit"]),
        ("retrain.cifar10.stages", {}),
        ("retrain.cifar10.stages", [1]),
        ("retrain.cifar10.stages", [[1]]),
        ("retrain.cifar10.loss.teacher", ""),
        ("retrain.cifar10.loss.teacher", "a\0b"),
        ("retrain.cifar10.loss.teacher", ["a"]),
        ("data.imagenet.folder", ""),
        ("data.imagenet.folder", "a\0b"),
        ("data.imagenet.folder", ["a"]),
        ("data.reid.name", "<b>x</b>"),
        ("data.reid.name", "../x"),
        ("data.reid.name", "x\ny"),
        ("data.detection.classes", []),
        ("data.detection.classes", ["cat", "cat"]),
        ("data.detection.classes", [["cat"]]),
        ("data.detection.train", "VOC2007/trainval"),
        ("profile", ["quick"]),
        ("paper_scale", "no"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line(place: str, value: object) -> None:
    with pytest.raises(InputError) as error:
        params.check(changed(place, value), "params.yaml")
    message = str(error.value)
    assert place.split(".")[0] in message and "\n" not in message and len(message) < 400


def test_alphas_that_would_never_move_are_refused() -> None:
    with pytest.raises(InputError, match="warm_up 5 leaves none of the 5 epochs"):
        params.check(changed("search.method.pc_darts.warm_up", 5), "params.yaml")
