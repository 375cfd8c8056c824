"""Teachers: files of ours and of torchvision, the inputs they were trained with, and answers given in advance."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from downstream.classification.described import NORMALISATION
from downstream.classification.states import read_state
from downstream.classification.teacher import (
    RESNETS,
    fix_teacher,
    identity_of,
    load_teacher,
    torchvision_resnet,
)
from downstream.models import build
from search.data import Batches
from search.errors import InputError
from search.training import seed_all, set_up
from search.weights import save_weights
from tests.downstream.test_classification import recipe, trainer
from tests.search import tiny


def normalised(pixels: torch.Tensor, task: str) -> torch.Tensor:
    """Pixels in [0, 1] as a task's network gets them."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATION[task])
    return (pixels - mean) / std


@pytest.fixture
def theirs() -> torchvision.models.ResNet:
    seed_all(0)
    return torchvision.models.resnet18(num_classes=4).eval()


@pytest.mark.parametrize("task", ["imagenet", "cifar10"])
@pytest.mark.parametrize("form", ["t.pth", "t.safetensors", "script.pth"])
def test_a_torchvision_resnet_sees_what_it_was_trained_with(
    theirs: torchvision.models.ResNet, task: str, form: str, tmp_path: Path
) -> None:
    path, state = tmp_path / form, theirs.state_dict()
    if form.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"model": state, "epoch": 90} if form == "script.pth" else state, path)
    teacher = load_teacher(path, task, classes=4)
    pixels = torch.rand(3, 3, 40, 40)
    with torch.no_grad():
        expected = theirs(normalised(pixels, "imagenet"))
    torch.testing.assert_close(teacher(normalised(pixels, task)), expected)
    assert (task == "imagenet") == torch.equal(teacher(normalised(pixels, task)), expected)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.train().modules())


def test_every_known_resnet_is_told_from_the_others() -> None:
    with torch.device("meta"):
        found = {name: getattr(torchvision.models, name)(num_classes=7).state_dict() for name in RESNETS}
    shapes = [{key: value.shape for key, value in state.items()} for state in found.values()]
    assert all(a != b for index, a in enumerate(shapes) for b in shapes[:index])
    small = {key: torch.zeros(value.shape) for key, value in found["resnet34"].items()}
    assert len(torchvision_resnet(small, "x").layer3) == 6
    old = {key: value for key, value in small.items() if not key.endswith("num_batches_tracked")}
    assert len(torchvision_resnet(old, "x").layer3) == 6  # files from before batches were counted


@pytest.mark.parametrize("trained", ["cifar10", "imagenet"])
def test_one_of_our_networks_on_the_images_of_the_other_task(trained: str, tmp_path: Path) -> None:
    seed_all(0)
    ours = build("bi-real-18", channels=4, classes=4, stem="cifar").eval()
    save_weights(tmp_path / "t.safetensors", ours, {"task": trained})
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = ours(normalised(pixels, trained).float())
        for task in NORMALISATION:
            teacher = load_teacher(tmp_path / "t.safetensors", task, classes=4)
            torch.testing.assert_close(
                teacher(normalised(pixels, task).float()), expected, atol=1e-4, rtol=1e-4
            )


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def test_what_cannot_be_a_teacher(
    theirs: torchvision.models.ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(message: str, name: str = "t.pth", classes: int = 4) -> None:
        with pytest.raises(InputError, match=message) as error:
            load_teacher(tmp_path / name, "cifar10", classes)
        assert "\n" not in str(error.value)

    refused("t.pth: no such weight file")
    (tmp_path / "t.pth").write_bytes(pickle.dumps(Evil()))
    refused("t.pth: is no PyTorch file|t.pth: holds a pickled posix.mkdir|t.pth: is damaged")
    torch.save(Evil(), tmp_path / "t.pth")
    refused("t.pth: holds a pickled posix.mkdir, and unpickling it could run code; save the state alone")
    assert not (tmp_path / "evil").exists()
    torch.save([1, 2], tmp_path / "t.pth")
    refused("holds a list, not tensors by name")
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "t.pth")
    refused("no network that is known here; allowed: weight files of this suite; .* resnet18, resnet34")
    torch.save(theirs.state_dict(), tmp_path / "t.pth")
    refused("t.pth: has 4 classes; allowed: 10, as the data has", classes=10)
    save_weights(tmp_path / "t.safetensors", build("bi-real-18", channels=4, classes=4), {"task": "voc"})
    refused("was trained on 'voc'; allowed: cifar10, imagenet", "t.safetensors")
    assert set(read_state(tmp_path / "t.pth")) == set(theirs.state_dict())


def test_answers_given_in_advance(theirs: torchvision.models.ResNet, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "t.pth")
    teacher = load_teacher(tmp_path / "t.pth", "cifar10", 4)
    fabric, images = set_up(tiny.COMPUTE, 0), tiny.images(22)
    plain = Batches(images, 8, seed=0, augmentation=recipe().augmentation).plain()
    identity = identity_of(tmp_path / "t.pth", "hash of the data", fabric, images=22)

    def fixed(other: Any = teacher, **changes: Any) -> Any:
        return fix_teacher(fabric, other, plain, (22, 4), identity | changes, tmp_path / "logits")

    made, chosen = fixed(), torch.tensor([21, 0, 7])
    whole = next(Batches(images, 22).epoch(0))[0]
    torch.testing.assert_close(made(whole[chosen], chosen), teacher(whole[chosen]), atol=1e-4, rtol=1e-4)
    (path,) = (tmp_path / "logits").iterdir()
    seed_all(1)
    torch.save(torchvision.models.resnet18(num_classes=4).state_dict(), tmp_path / "o.pth")
    another = load_teacher(tmp_path / "o.pth", "cifar10", 4)
    assert torch.equal(fixed(another)(whole, chosen), made(whole, chosen))  # read, not asked again
    changed = identity_of(tmp_path / "o.pth", "hash of the data", fabric, images=22)
    assert changed != identity
    assert not torch.allclose(fixed(another, **changed)(whole, chosen), made(whole, chosen))
    assert len(list((tmp_path / "logits").iterdir())) == 2
    expected = np.array(made.logits)
    path.write_bytes(path.read_bytes()[:200])
    assert np.array_equal(fixed().logits, expected)


def test_a_fixed_teacher_is_the_live_one_where_nothing_is_augmented(
    theirs: torchvision.models.ResNet, tmp_path: Path
) -> None:
    """Every image meets its own answer, whatever the order; with augmentation the two are different recipes."""
    torch.save(theirs.state_dict(), tmp_path / "t.pth")
    live = load_teacher(tmp_path / "t.pth", "cifar10", 4)

    def history(fixed: bool, padding: int) -> list[float]:
        settings = recipe(
            {"handmade_channels": 4},
            {"teacher": "t.pth", "teacher_weight": 0.7, "temperature": 2.0, "class_mean_weight": 0.0},
            augmentation={"crop_padding": padding, "flip": False, "cutout": 0},
        )
        made = trainer(tmp_path / f"{fixed}{padding}", settings, network="resnet-18", teacher=live)
        if fixed:
            identity: dict[str, Any] = {"padding": padding}
            plain = made.train_batches.plain()
            made.teacher = fix_teacher(made.fabric, live, plain, (64, 4), identity, tmp_path / "logits")
        return [row["train_loss"] for row in made.run().history]

    assert history(True, 0)[0] == pytest.approx(history(False, 0)[0], rel=1e-4)
    assert history(True, 3)[0] != pytest.approx(history(False, 3)[0], rel=1e-4)
