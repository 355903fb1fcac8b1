"""The data set's errors (`model.training.data.image_folder`) as the command line says them."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli.errors import NotReadyError
from model.training.data.image_folder import DataSetError, ImageFolder, find


def find_data_set(root: Path) -> ImageFolder:
    """Find the images of a data set, usable or not; a NotReadyError as `find` raises a DataSetError."""
    try:
        return find(root)
    except DataSetError as error:
        raise NotReadyError(str(error), "To draw a small data set: kennel data sample") from error


def read_data_set(root: Path) -> ImageFolder:
    """Find the images of a data set that a model can be trained on; a NotReadyError also with its first problem."""
    folder = find_data_set(root)
    for problem in folder.problems():
        raise NotReadyError(problem)
    return folder


def require_room(folder: Path, needed: int, what: str) -> None:
    """Refuse with a NotReadyError where fewer than `needed` bytes of disk are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = f"{folder} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed to {what}."
        raise NotReadyError(message, "Make room or choose a folder on another volume; what has arrived is kept.")


def named(folder: Path) -> Path:
    """Return the same folder by a path that ends in its name, which "." and ".." do not."""
    return folder.resolve() if folder.name in ("", "..") else folder


def read_file(path: Path) -> bytes:
    """Read an image file; a NotReadyError when it is gone, say, or belongs to another user."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReadyError(
            f"{path} cannot be read: {error.strerror or error}.", "Make it readable or remove it."
        ) from error
