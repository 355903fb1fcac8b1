"""Published data sets (`published.toml`), which torchvision's loaders verify, unpack and read."""

from __future__ import annotations

import importlib
import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class PublishedSet(NamedTuple):
    """What is published, on which terms, and how torchvision names its parts."""

    title: str
    images: int
    licence: str  # as the publisher states it
    page: str
    loader: str  # a class of torchvision.datasets
    folder: str  # below the loader's root: where it looks for the archives
    splits: Mapping[str, str]  # ours, and the loader's; both empty where there are none
    archives: Sequence[Mapping[str, Any]]  # url, size in bytes, md5

    def unpack(self, archives: Iterable[Path], scratch: Path, directory: Path) -> None:
        """Unpack archives below one folder, and move the images into class folders of another."""
        place, loader = scratch / self.folder, getattr(torchvision_datasets(), self.loader)
        place.mkdir(parents=True)
        for path in archives:
            (place / path.name.removesuffix(".part")).symlink_to(path.resolve())  # so that nothing is downloaded
        for ours, theirs in self.splits.items():
            data_set = loader(root=scratch, download=True, **({"split": theirs} if theirs else {}))
            for image, label in _samples(data_set):
                folder = directory / ours / class_name(data_set.classes[label])
                folder.mkdir(parents=True, exist_ok=True)
                Path(image).rename(folder / Path(image).name)


def published_sets() -> dict[str, PublishedSet]:
    """Read the sets that can be pulled, by name."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: PublishedSet(**columns) for name, columns in table.items()}


def torchvision_datasets() -> Any:
    """Import `torchvision.datasets`; that takes seconds."""
    from model.core.network import torchvision_models

    torchvision_models()  # makes torchvision importable
    return importlib.import_module("torchvision.datasets")


def class_name(name: str) -> str:
    """Return a loader's name of a class as people write it: apple_pie is Apple Pie, AnnualCrop is Annual Crop."""
    return string.capwords(re.sub("([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").strip("?"))


def _samples(data_set: Any) -> Iterable[tuple[str | Path, int]]:
    """Return paths and labels: a loader's own iteration would decode the images."""
    paths = next((vars(data_set)[name] for name in ("_images", "_image_files") if hasattr(data_set, name)), None)
    return data_set.samples if paths is None else zip(paths, data_set._labels, strict=True)
