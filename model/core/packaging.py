"""The model artifact: a trained model with the program that serves it, as a folder and as a `model.tar.gz`.

The archive is deterministic, the same files give the same bytes, because deployments compare artifacts by their hash:
packaging a model twice must not replace the endpoint. Importing this module needs no torch.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from .archives import read_archive, write_archive
from .artifact import CARD_FILE, ONNX_FILE, WEIGHTS_FILE, ArtifactError, ModelCard, verify_files
from .predictor import Predictor

METRICS_FILE = "metrics.json"
# A training that was killed before it had finished its model leaves in its place the best one so far, in this archive.
BEST_FILE = "best.tar.gz"
# What makes an artifact a model; the rest is the serving program, which comes from this checkout.
MODEL_FILES = (CARD_FILE, ONNX_FILE, WEIGHTS_FILE, METRICS_FILE)

# The packages that the serving program consists of: what only training needs stays out of the container.
SERVING_PACKAGES = ("core", "serving")
_MODEL = Path(__file__).parents[1]


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    # A file name may hold bytes that are no text (surrogates), which JSON writes as the escapes that this makes.
    (folder / METRICS_FILE).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def add_serving_program(folder: Path) -> None:
    """Put this checkout's serving program into an artifact's folder, in place of the one that is there."""
    code = folder / "code"
    shutil.rmtree(code, ignore_errors=True)
    leave_out = shutil.ignore_patterns("__pycache__", "image", "serve")
    for name in SERVING_PACKAGES:
        shutil.copytree(_MODEL / name, code / "model" / name, ignore=leave_out, copy_function=shutil.copyfile)
    shutil.copyfile(_MODEL / "__init__.py", code / "model" / "__init__.py")
    shutil.copyfile(_MODEL / "serving" / "serve", code / "serve")
    (code / "serve").chmod(0o755)


def package(source: Path, destination: Path) -> ModelCard:
    """Make the deployable archive: the model of `source` with the serving program of this checkout.

    `source` is a training job's output, its folder or its `model.tar.gz`, whose program is not even unpacked.
    `destination` is replaced only when the new archive is complete, and may be the source. ArtifactError is raised when
    the source is not an intact model that answers.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_name(f".{destination.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="package-") as name:
        artifact = Path(name)
        with _model_folder(source) as folder:
            card = verify_files(folder)
            image = io.BytesIO()
            Image.linear_gradient("L").save(image, "PNG")
            Predictor.load(folder).predict(image.getvalue())
            for file in MODEL_FILES:
                if (folder / file).exists():
                    shutil.copyfile(folder / file, artifact / file)
        add_serving_program(artifact)
        try:
            with unfinished.open("wb") as archive:
                write_archive(artifact, archive)
            unfinished.replace(destination)
        finally:
            unfinished.unlink(missing_ok=True)
    return card


def unpack(source: Path, folder: Path, names: Collection[str] = MODEL_FILES) -> None:
    """Copy the files of these names, as far as they are there, out of a tar.gz into an existing folder.

    An archive that `read_archive` refuses or the disk has no room for raises ArtifactError.
    """
    for name, size, content in read_archive(source):
        if name in names:
            free = shutil.disk_usage(folder).free
            if size > free:
                raise ArtifactError(f"{name} in {source} has {size:,} bytes; there are {free:,} free in {folder}.")
            with (folder / name).open("wb") as file:
                shutil.copyfileobj(content, file)


@contextmanager
def _model_folder(path: Path) -> Iterator[Path]:
    """Give the folder that holds an artifact's model files, unpacked for the time being if it is an archive.

    Of an unfinished training that is the best model so far, unless its finished one is whole.
    """
    with tempfile.TemporaryDirectory(prefix="artifact-") as name:
        folder, best = path, Path(name, "best")
        if not path.is_dir():
            folder = Path(name)
            unpack(path, folder, (*MODEL_FILES, BEST_FILE))
        if (folder / BEST_FILE).is_file():
            try:
                verify_files(folder)
            except ArtifactError:  # so the training ended before its model was finished
                best.mkdir()
                unpack(folder / BEST_FILE, best)
                folder = best
        try:
            yield folder
        except ArtifactError as error:
            # The message names the temporary folder, which is gone when it is read.
            raise ArtifactError(str(error).replace(str(folder), str(path))) from None
