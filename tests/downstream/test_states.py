"""Weight files of others: each form is read, or one line says what the file is."""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from downstream.classification.described import check_classes, description
from downstream.classification.states import read_state
from downstream.classification.teacher import load_teacher
from downstream.models import build
from search.errors import InputError
from search.training import seed_all
from search.versions import newest
from search.weights import STEPS, load_weights, read_header, save_weights

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 46830571\n"


@pytest.fixture(scope="module")
def network() -> torchvision.models.ResNet:
    seed_all(0)
    return torchvision.models.resnet18(num_classes=2).eval()


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return OrderedDict((prefix + key, value) for key, value in state.items())


def test_every_form_of_a_state_is_read(network: torchvision.models.ResNet, tmp_path: Path) -> None:
    state, path = network.state_dict(), tmp_path / "w.pth"
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9).state_dict()
    forms: list[tuple[Any, dict[str, Any]]] = [
        (state, {}),
        (state, {"_use_new_zipfile_serialization": False}),
        (
            {"epoch": 1, "arch": "resnet18", "state_dict": renamed(state, "module."), "optimizer": optimiser},
            {},
        ),
        ({"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 1, "optimizer": optimiser}, {}),
        ({"model_state_dict": state, "epoch": 1}, {}),
        ({"model": state, "model_ema": renamed(state, "module.")}, {}),
        ({"state_dict": renamed(state, "model."), "hyper_parameters": {"lr": 0.1}}, {}),
        (renamed(state, "_orig_mod."), {}),
        (renamed(state, "module._orig_mod."), {}),
        (renamed(state, "_orig_mod.module."), {}),
    ]
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(pixels)
    for value, options in forms:
        torch.save(value, path, **options)
        assert torch.equal(load_teacher(path, "imagenet", 2)(pixels), expected)
    # told by content, whatever the name says
    save_file(state, path, metadata={"format": "pt"})
    assert torch.equal(load_teacher(path, "imagenet", 2)(pixels), expected)
    torch.save(state, tmp_path / "w.safetensors")
    assert torch.equal(load_teacher(tmp_path / "w.safetensors", "imagenet", 2)(pixels), expected)
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path
    )
    torch.testing.assert_close(load_teacher(path, "imagenet", 2)(pixels), expected, atol=0.05, rtol=0.05)


def test_two_states_in_one_file_are_said(
    network: torchvision.models.ResNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": network.state_dict(), "model_ema": network.state_dict()}, tmp_path / "w.pth")
    read_state(tmp_path / "w.pth")
    assert "w.pth: read is 'model'; there is also model_ema" in caplog.text


def test_what_is_no_state_is_named(network: torchvision.models.ResNet, tmp_path: Path) -> None:
    state = network.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    whole = buffer.getvalue()

    def refused(message: str, content: Any, name: str = "w.pth") -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(InputError) as error:
            load_teacher(path, "imagenet", 2)
        text = str(error.value)
        assert message in text and text.startswith(str(path)) and "\n" not in text and len(text) < 600, text

    refused("no such weight file", None, "none.pth")
    refused("is empty", b"")
    for name in ("w.pth", "w.safetensors"):
        refused("is a Git LFS pointer, not the weights; run: git lfs pull", POINTER.encode(), name)
        refused("is a web page", b"\n<!DOCTYPE html><html>404</html>", name)
        refused("damaged or cut short", whole[: len(whole) // 2], name)
        refused("HDF5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, name)
        refused("gzip", gzip.compress(whole[:1000]), name)
    (tmp_path / "folder.pth").mkdir()
    refused("is a folder", None, "folder.pth")
    refused("holds a pickled torchvision.models.resnet.ResNet, and unpickling it could run code", network)
    torch.jit.script(network).save(tmp_path / "script.pt")
    refused("is a TorchScript program", None, "script.pt")
    np.savez(tmp_path / "w.npz", **{"fc.bias": np.zeros(2)})
    refused("is a NumPy archive", None, "w.npz")
    refused("pickled numpy", {"state_dict": {"fc.bias": np.zeros(2)}})
    refused("has no classifier", {key: value for key, value in state.items() if not key.startswith("fc.")})
    refused("no network that is known here", {"fc.bias": torch.tensor(1.0)})
    refused("holds something else than tensors by name (also epoch)", {**state, "epoch": 3})
    refused("holds something else than tensors by name (nothing)", {})
    refused("holds a Tensor, not tensors by name", torch.zeros(3))
    wrong = {key: value.clone() for key, value in state.items()}
    wrong["fc.weight"][0, 0] = float("nan")
    refused("fc.weight has NaN or infinite values", wrong)


def test_ours_with_nan_are_refused(tmp_path: Path) -> None:
    network = build("bi-real-18", channels=4, classes=3, stem="cifar")
    with torch.no_grad():
        network.classifier.weight[0, 0] = float("inf")
    save_weights(tmp_path / "w.safetensors", network)
    with pytest.raises(InputError, match=r"classifier.weight has NaN or infinite"):
        load_weights(tmp_path / "w.safetensors", build("bi-real-18", channels=4, classes=3, stem="cifar"))


def test_a_file_says_what_it_is_and_of_which_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, path = build("bi-real-18", channels=4, classes=3, stem="cifar"), tmp_path / "w.safetensors"
    names = ["ant", "bée", "cat"]
    save_weights(path, network, {"task": "cifar10", **description(network, "cifar10", names)})
    header = read_header(path)
    assert (
        json.loads(header["classes"]) == names
        and header["schema"] == newest(STEPS)
        and header["suite"] != "unknown"
    )
    assert json.loads(header["mean"])[0] == pytest.approx(0.4914, abs=1e-4)
    (rule,) = json.loads(header["binary_rules"])
    assert rule["input"].startswith("SignActivation(") and rule["weight"].startswith(
        "SignWeight(scale=mean_abs"
    )
    assert (rule["convolutions"], rule["pad_value"]) == (16, 0.0)
    load_teacher(path, "cifar10", 3, names)
    assert caplog.text == ""
    for others, message in (
        (["ant", "cat", "bée"], "classes in another order"),
        (["ant", "bée", "dog"], "from place 2 on cat; allowed: dog"),
    ):
        with pytest.raises(InputError, match=message):
            load_teacher(path, "cifar10", 3, others)
    load_teacher(path, "cifar10", 3)
    assert "does not say its classes" in caplog.text
    for broken in ("{", '{"a": 1}', "[1]", "[" * 100_000):
        with pytest.raises(InputError, match="is no list of names"):
            check_classes({"classes": broken}, names, path)
