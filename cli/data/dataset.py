"""Data sets on this machine: found, and written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cli.console import console
from cli.errors import NotReadyError, UsageError
from model.training.data.image_folder import ImageFolder, find
from model.training.data.listing import DataSetError


@contextlib.contextmanager
def data_set_errors(hint: str = "") -> Iterator[None]:
    """Raise a NotReadyError in place of a DataSetError."""
    try:
        yield
    except DataSetError as error:
        raise NotReadyError(str(error), hint) from error


def find_data_set(root: Path) -> ImageFolder:
    """Find the images of a data set, usable or not; a NotReadyError as `find` raises a DataSetError."""
    with data_set_errors("To draw a small data set: kennel data sample"):
        return find(root)


def read_data_set(root: Path) -> ImageFolder:
    """Find the images of a data set that a model can be trained on; a NotReadyError also with its first problem."""
    folder = find_data_set(root)
    for problem in folder.problems():
        raise NotReadyError(problem)
    return folder


def print_notes(folder: ImageFolder) -> None:
    """Say which splits of a data set were held out, and what was left out."""
    for note in folder.notes():
        console.print(f"warning: {note}")


def named(folder: Path) -> Path:
    """Return the same folder by a path that ends in its name, which "." and ".." do not; "/" is a UsageError."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    if not named.name:
        raise UsageError(f"{folder} cannot be a data set's folder: name one below it.")
    return named


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep a second command from writing to a folder; the system lets go of the lock however this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise NotReadyError(f"{folder} cannot be made: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise NotReadyError(f"Another kennel data command is writing to {folder}.", "Wait for its end.") from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_folder(directory: Path) -> Iterator[Path]:
    """Yield a new folder that takes its name, and an earlier one's place, when the block has ended without an error.

    Until then it lies in a hidden folder beside it, which the next run removes if this one is killed.
    """
    hidden = directory.with_name(f".{directory.name}.unfinished")
    new = hidden / "new"
    try:
        _put_back(hidden, directory)
        new.mkdir(parents=True)
        yield new
        if directory.exists():
            directory.rename(hidden / "old")
        new.rename(directory)
    except OSError as error:
        raise NotReadyError(f"{error.filename or directory} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            _put_back(hidden, directory)


def _put_back(hidden: Path, directory: Path) -> None:
    """Give a folder whose successor never came its name again, and remove what else is hidden."""
    old = hidden / "old"
    if old.exists() and not directory.exists():
        old.rename(directory)
    if hidden.exists():
        shutil.rmtree(hidden)
