"""Data sets through Torchreid: official layouts by its own classes, any folder by ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from downstream.reid import data, loaders
from downstream.reid.compat import quiet, torchreid
from downstream.reid.layout import GALLERY, QUERY, TRAIN
from downstream.reid.loaders import Source
from search.errors import InputError
from tests.downstream import reid_fixture as fixture


def test_any_folder_in_market_naming(tmp_path: Path) -> None:
    name = data.register_folder("textures-a", fixture.make(tmp_path))
    splits = data.check(name)
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (16, 3, 9)
    manager = torchreid().data.ImageDataManager(
        sources=name, height=32, width=32, workers=0, batch_size_train=4
    )
    batch = next(iter(manager.train_loader))
    assert batch["img"].shape == (4, 3, 32, 32)
    assert sorted({row[1] for row in manager.train_loader.dataset.train}) == [0, 1, 2, 3]


def test_a_name_belongs_to_one_folder(tmp_path: Path) -> None:
    first, second = fixture.make(tmp_path / "a"), fixture.make(tmp_path / "b")
    assert data.register_folder("textures-b", first) == data.register_folder("textures-b", first)
    for name in ("textures-b", "market1501"):
        with pytest.raises(InputError, match=f"'{name}' is taken"):
            data.register_folder(name, second)


def test_junk_is_left_out_and_distractors_stay(tmp_path: Path) -> None:
    root = fixture.make(tmp_path)
    gallery = sorted((root / GALLERY).iterdir())
    shutil.copy(gallery[0], root / GALLERY / "-1_c1s1_000000_00.png")
    shutil.copy(gallery[0], root / GALLERY / "0000_c1s1_000000_00.png")
    pids = [picture.pid for picture in data.check(data.key("junk", root, "folder")).gallery]
    assert (pids.count(-1), pids.count(0), len(pids)) == (0, 1, 10)


@pytest.mark.parametrize(
    "inner", ["", "Market-1501-v15.09.15", "market1501", "market1501/Market-1501-v15.09.15"]
)
def test_market1501_wherever_it_was_unpacked(tmp_path: Path, inner: str) -> None:
    fixture.make(tmp_path / inner, suffix="jpg")
    splits = data.check(data.key("market", tmp_path, "market1501"))
    assert [picture.pid for picture in splits.train] == [pid for pid in range(1, 5) for _ in range(4)]
    assert [picture.path.name for picture in splits.query] == [
        f"{pid:04d}_c1s1_000000_00.jpg" for pid in (5, 6, 7)
    ]


def msmt17(root: Path) -> Path:
    """MSMT17's official layout: lists of "<folder>/<name> <identity>", the camera third in the name."""
    base = root / "MSMT17_V1"
    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for part, pids in (("train", (0, 1)), ("test", (0, 1))):
        for pid in pids:
            for number in range(4):
                relative = f"{pid:04d}/{pid:04d}_{number:03d}_{1 + number % 2:02d}_0303morning_0008_0.jpg"
                path = base / part / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                split = "train" if part == "train" else "query" if number == 0 else "gallery"
                lists[split].append(f"{relative} {pid}\n")
    for split, lines in lists.items():
        (base / f"list_{split}.txt").write_text("".join(lines or ["0000/0000_000_01_x.jpg 0\n"]))
    return root


@pytest.mark.parametrize("given", ["", "MSMT17_V1"])
def test_msmt17_wherever_it_was_unpacked(tmp_path: Path, given: str) -> None:
    root = msmt17(tmp_path) / given
    splits = data.check(data.key("msmt", root, "msmt17"))
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (8, 2, 6)
    assert [(picture.pid, picture.camera) for picture in splits.query] == [(0, 1), (1, 1)]


def test_the_readers_here_give_what_torchreids_own_classes_give(tmp_path: Path) -> None:
    """On what Torchreid can read: the same pictures, identities and cameras."""
    fixture.make(tmp_path / "market/Market-1501-v15.09.15", suffix="jpg")
    (tmp_path / "market1501").symlink_to(tmp_path / "market")
    msmt17(tmp_path / "msmt17")
    for kind, name in (("market1501", "Market1501"), ("msmt17", "MSMT17")):
        with quiet():
            theirs = getattr(torchreid().data.datasets, name)(root=str(tmp_path))
            ours = data.dataset_class(kind, tmp_path / kind)()
        for split in ("train", "query", "gallery"):
            rows = [
                sorted((Path(row[0]).name, *row[1:3]) for row in getattr(found, split))
                for found in (ours, theirs)
            ]
            if split != "train":  # market's training identities are relabelled in no order by Torchreid
                assert rows[0] == rows[1]
            assert [row[::2] for row in rows[0]] == [row[::2] for row in rows[1]]


def cuhk03(root: Path) -> Path:
    """CUHK03 as Torchreid leaves it after its first run (the raw file is 1.6 GB of MATLAB cells)."""
    rows = [
        (f"images_detected/1_{pid:03d}_{1 + n % 2}_{n:02d}.png", pid, n % 2)
        for pid in range(2)
        for n in range(4)
    ]
    split = {"train": rows, "query": rows[:1], "gallery": rows[1:]}
    for folder in ("cuhk03_release", "images_detected", "images_labeled"):
        (root / folder).mkdir(parents=True)
    (root / "cuhk03_release/cuhk-03.mat").touch()
    for kind in ("detected", "labeled"):
        (root / f"cuhk03_new_protocol_config_{kind}.mat").touch()
        for protocol in ("new", "classic"):
            (root / f"splits_{protocol}_{kind}.json").write_text(json.dumps([split]))
    return root


def test_cuhk03_by_torchreids_own_class(tmp_path: Path) -> None:
    root = cuhk03(tmp_path)
    assert issubclass(data.dataset_class("cuhk03", root), torchreid().data.datasets.image.cuhk03.CUHK03)
    splits = data.check(data.key("cuhk", root, "cuhk03"))
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (8, 1, 7)


def raw_cuhk03(root: Path) -> Path:
    """CUHK03 as its authors give it, in small: MATLAB cells of pictures, and the new protocol's two files.

    ``cuhk-03.mat`` is an HDF5 file: detected and labeled are cells of camera pairs, each a cell of persons x 10
    pictures (five of either view), testsets are cells of [pair, person]. One camera pair, three persons, the
    pictures 1 and 6 of each; the others are empty cells. Every array is transposed, as MATLAB writes it.
    """
    random = np.random.default_rng(0)
    names = [
        f"1_{person:03d}_{view}_{place:02d}.png" for person in (1, 2, 3) for view, place in ((1, 1), (2, 6))
    ]
    (root / "cuhk03_release").mkdir(parents=True)
    with h5py.File(root / "cuhk03_release/cuhk-03.mat", "w") as file:

        def cell(place: str, array: np.ndarray) -> h5py.Reference:
            return file.create_dataset(place, data=array).ref

        for kind in ("detected", "labeled"):
            pictures = np.empty((10, 3), dtype=h5py.ref_dtype)
            for person in range(3):
                for place in range(10):
                    shape = (3, 32, 40) if place in (0, 5) else (0, 0)
                    values = random.integers(0, 256, shape, np.uint8)
                    pictures[place, person] = cell(f"cells/{kind}/{person}/{place}", values)
            pair = file.create_dataset(f"cells/{kind}/pair", data=pictures, dtype=h5py.ref_dtype)
            file.create_dataset(kind, data=np.array([[pair.ref]]), dtype=h5py.ref_dtype)
        split = cell("cells/testset", np.array([[1.0], [3.0]]))
        file.create_dataset("testsets", data=np.array([[split]]), dtype=h5py.ref_dtype)
    files = np.empty((6, 1), dtype=object)
    files[:, 0] = [np.array([name]) for name in names]
    protocol = {
        "filelist": files,
        "labels": np.array([[1], [1], [2], [2], [3], [3]]),
        "train_idx": np.array([[1], [2], [3], [4]]),
        "query_idx": np.array([[5]]),
        "gallery_idx": np.array([[6]]),
    }
    for kind in ("detected", "labeled"):
        savemat(root / f"cuhk03_new_protocol_config_{kind}.mat", protocol)
    return root


def test_cuhk03_from_its_raw_matlab_file(tmp_path: Path) -> None:
    root = raw_cuhk03(tmp_path)
    splits = data.check(data.key("cuhk-raw", root, "cuhk03"))
    assert [(picture.path.name, picture.pid, picture.camera) for picture in splits.train] == [
        ("1_001_1_01.png", 0, 1),
        ("1_001_2_06.png", 0, 2),
        ("1_002_1_01.png", 1, 1),
        ("1_002_2_06.png", 1, 2),
    ]
    assert [(picture.path.name, picture.camera) for picture in splits.query] == [("1_003_1_01.png", 1)]
    assert [(picture.path.name, picture.camera) for picture in splits.gallery] == [("1_003_2_06.png", 2)]
    with h5py.File(root / "cuhk03_release/cuhk-03.mat") as file, Image.open(splits.query[0].path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), file["cells/detected/2/0"][:].T)


@pytest.mark.parametrize("kind", ["market1501", "msmt17", "cuhk03"])
def test_another_layout_is_refused_and_nothing_is_downloaded(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match=f"not the layout of {kind}; allowed: a folder with "):
        data.key("wrong", tmp_path, kind)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_an_official_set_with_a_broken_list_is_one_line(tmp_path: Path) -> None:
    (msmt17(tmp_path) / "MSMT17_V1/list_query.txt").write_text("no identity here at all\n")
    with pytest.raises(InputError, match="list_query.txt: the line .* is not a picture and its identity"):
        data.check(data.key("broken", tmp_path, "msmt17"))


def test_a_broken_picture_ends_the_run_and_names_the_file(tmp_path: Path) -> None:
    """Torchreid's own reader tries such a file again for ever."""
    root = fixture.make(tmp_path)
    victim = sorted((root / QUERY).iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:200])
    built = loaders.build(Source("broken", str(root), "folder"), None, fixture.settings())
    with pytest.raises(InputError, match=f"{victim.name}: cannot be read as a picture"):
        list(built.manager.test_loader[built.target]["query"])


def test_train_on_one_set_and_test_on_another(tmp_path: Path) -> None:
    source = Source("a", str(fixture.make(tmp_path / "a", train=5)), "folder")
    target = Source("b", str(fixture.make(tmp_path / "b", first=50)), "folder")
    built = loaders.build(source, target, fixture.settings())
    assert built.identities == 5
    for split in ("query", "gallery"):
        pids = {row[1] for row in built.manager.test_loader[built.target][split].dataset.data}
        assert pids == {54, 55, 56}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identities": 5}, r"4 training identities, a batch wants 5 \(reid.identities\)"),
        ({"images": 9}, "16 training pictures, a batch wants 18"),
    ],
)
def test_a_set_smaller_than_a_batch(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    source = Source("small", str(fixture.make(tmp_path)), "folder")
    with pytest.raises(InputError, match=message):
        loaders.build(source, None, fixture.settings(**changes))


def test_augmentation_follows_the_settings(tmp_path: Path) -> None:
    names = [type(step).__name__ for step in loaders.augmentation(fixture.settings()).transforms]
    assert names == [
        "Resize",
        "RandomHorizontalFlip",
        "Pad",
        "RandomCrop",
        "ToTensor",
        "Normalize",
        "RandomErasing",
    ]
    plain = fixture.settings(flip=False, pad=0, erasing=0.0)
    assert [type(step).__name__ for step in loaders.augmentation(plain).transforms] == [
        "Resize",
        "ToTensor",
        "Normalize",
    ]
    built = loaders.build(Source("aug", str(fixture.make(tmp_path)), "folder"), None, plain)
    assert len(built.manager.train_loader.dataset.transform.transforms) == 3
    assert TRAIN in built.manager.train_loader.dataset.train[0][0]
