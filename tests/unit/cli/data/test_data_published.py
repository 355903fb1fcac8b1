"""`kennel data pull --set`, with torchvision's own loaders and small archives laid out as the published ones."""

from __future__ import annotations

import inspect
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from scipy.io import savemat
from training_fixtures import draw

from cli.data import pull as data_pull
from cli.data.published import class_name, published_sets, torchvision_datasets

DATASETS = torchvision_datasets()
CHECK_MD5 = DATASETS.utils.check_md5
# The archives that are folders; the classes and the images of each split that come of what `write` writes.
SETS: dict[str, tuple[list[str], list[str], dict[str, int]]] = {
    "pets": (["images", "annotations"], ["Abyssinian", "Great Pyrenees"], {"train": 8, "test": 4}),
    "food": (["food-101"], ["Apple Pie", "Baby Back Ribs"], {"train": 8, "test": 4}),
    "flowers": (["jpg"], ["Colt's Foot", "Pink Primrose"], {"train": 4, "valid": 2, "test": 2}),
    "eurosat": (["2750"], ["Annual Crop", "Sea Lake"], {"": 12}),
}


def write(root: Path) -> None:
    """Write the contents of all sets' archives."""
    images = [f"2750/{kind}/{kind}_{number}" for kind in ("AnnualCrop", "SeaLake") for number in range(6)]
    for split, pets, numbers in (("train", "trainval", "1234"), ("test", "test", "56")):
        names = {f"{breed}_{n}": i for i, breed in enumerate(("Abyssinian", "great_pyrenees"), 1) for n in numbers}
        dishes = {dish: [f"{dish}/{number}" for number in numbers] for dish in ("apple_pie", "baby_back_ribs")}
        for place, text in (
            (f"annotations/{pets}.txt", "".join(f"{name} {label} 1 1\n" for name, label in names.items())),
            (f"food-101/meta/{split}.json", json.dumps(dishes)),
        ):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text(text)
        images += [f"images/{name}" for name in names]
        images += [f"food-101/images/{image}" for listed in dishes.values() for image in listed]
    images += [f"jpg/image_{number:05d}" for number in range(1, 9)]
    for number, image in enumerate(images):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{image}.jpg").write_bytes(draw(number % 2, number))
    savemat(root / "imagelabels.mat", {"labels": [1, 12] * 4})
    savemat(root / "setid.mat", {"trnid": [1, 2, 3, 4], "valid": [5, 6], "tstid": [7, 8]})


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small sets' archives, each under the publisher's name."""
    root = tmp_path_factory.mktemp("published")
    write(root)
    for name, (folders, *_) in SETS.items():
        for archive, folder in zip(published_sets()[name].archives, folders, strict=False):
            path = root / archive["url"].rpartition("/")[2]
            if path.suffix == ".zip":
                shutil.make_archive(str(path.with_suffix("")), "zip", root, folder)
            else:
                with tarfile.open(path, "w:gz") as tar:
                    tar.add(root / folder, folder)
    return root


@pytest.fixture
def online(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been downloaded; torchvision takes the checksums of the small archives for the published ones."""
    monkeypatch.chdir(tmp_path)
    digest, downloads = DATASETS.utils.calculate_md5, []
    known = {digest(path) for path in published.iterdir() if path.is_file()}
    monkeypatch.setattr(DATASETS.utils, "check_md5", lambda path, _: digest(path) in known)

    def download(url: str, part: Path, **_: Any) -> None:
        downloads.append(url)
        shutil.copy(published / part.name.removesuffix(".part"), part)

    monkeypatch.setattr(data_pull, "download", download)
    return downloads


@pytest.mark.parametrize("name", SETS)
def test_a_set_becomes_class_folders_of_its_own_splits(name: str, online: list[str], kennel: Any) -> None:
    offered, (_, classes, splits) = published_sets()[name], SETS[name]
    code, output = kennel("data", "pull", "--set", name)
    assert code == 0 and "smallest class" in output, output  # the check's table
    assert f"{offered.images:,} images" in output and offered.licence in output
    folder = Path("data", name)
    assert {split: len(list((folder / split).glob("*/*.jpg"))) for split in splits} == splits
    assert sorted(path.name for path in (folder / next(iter(splits))).iterdir()) == classes
    assert {path.name for path in Path("data").iterdir()} == {name, f"{name}.source.json"}
    code, output = kennel("data", "pull", "--set", name)
    assert code == 0 and "was pulled from there on" in output
    assert online == [archive["url"] for archive in offered.archives]


def test_archives_that_a_person_put_there_are_used_and_kept(online: list[str], published: Path, kennel: Any) -> None:
    Path("data/eurosat.archives").mkdir(parents=True)
    own = Path(shutil.copy(published / "EuroSAT.zip", "data/eurosat.archives"))
    assert kennel("data", "pull", "--set", "eurosat")[0] == 0
    assert own.exists() and not online


def test_a_changed_archive_is_refused(online: list[str], kennel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS.utils, "check_md5", CHECK_MD5)
    code, output = kennel("data", "pull", "--set", "food")
    assert code == 3 and "is not what was published: its MD5 is not 85eeb15f" in output
    assert not list(Path("data/food.archives").iterdir()) and not Path("data/food").exists()


def test_what_does_not_fit_on_the_disk_is_not_downloaded(online: list[str], kennel: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**9, 9 * 10**9))
    code, output = kennel("data", "pull", "--set", "food")
    assert code == 3 and "has 9.0 GB free; archives and images need 10.5 GB" in output and not online


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--set", "cars"], "food: Food-101"), (["--set", "pets", "--url", "https://a.b/c.zip"], "leave out --url")],
)
def test_a_wrong_command_line_is_refused_with_what_is_allowed(kennel: Any, arguments: list[str], said: str) -> None:
    code, output = kennel("data", "pull", *arguments)
    assert code == 2 and said in output


@pytest.mark.parametrize("name", SETS)
def test_addresses_and_checksums_are_those_of_torchvision(name: str) -> None:
    offered = published_sets()[name]
    source = inspect.getsource(inspect.getmodule(getattr(DATASETS, offered.loader)))  # type: ignore[arg-type]
    for archive in offered.archives:
        assert all(part in source for part in (archive["md5"], *archive["url"].rpartition("/")[::2]))


def test_every_flower_has_a_name_of_its_own() -> None:
    names = {class_name(name) for name in DATASETS.Flowers102.classes}
    assert len(names) == 102 and {"Pink-yellow Dahlia", "Prince Of Wales Feathers"} <= names
