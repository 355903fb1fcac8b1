"""Where a network's first weights come from: torchvision's published ones, a file, an object in S3, or chance."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch

from ..core.artifact import CARD_FILE, ModelCard, file_version
from ..core.network import NetworkError, made_for, published
from ..core.transforms import Preprocessing
from .defaults import RANDOM

log = logging.getLogger(__name__)

PUBLISHED = "default"


def preprocessing_for(architecture: str, weights: Path | None, input_size: int | None) -> Preprocessing:
    """Return how images are made into the network's input: as for its weights, or with an input of another size.

    An artifact's weights, which have the model's card beside them, are for what the card says; others for what the
    network is published with.
    """
    made = made_for(architecture, weights)
    if weights is not None and (weights.parent / CARD_FILE).is_file():
        card = ModelCard.load(weights.parent)
        if card.architecture == architecture:
            made = Preprocessing.of(card)
    if weights is not None and input_size not in (None, made.input_size):
        log.warning(
            "--input-size %d: these weights of %s are for images of %d pixels, resized to %d; without --input-size "
            "they get those",
            *(input_size, architecture, made.input_size, made.resize_size),
        )
    chosen = made.at(input_size or made.input_size)
    log.info("the network's input: %s", chosen)
    return chosen


@contextlib.contextmanager
def local_weights(source: str, architecture: str) -> Iterator[Path | None]:
    """Give the file of a state dictionary for `network.build`, or None, for the duration of the block.

    The source is "default", torchvision's best published weights, kept in torch's hub folder; "s3://BUCKET/KEY";
    "none"; or a file's path. Raises NetworkError when the weights cannot be had.
    """
    if source == RANDOM:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        if source == PUBLISHED:
            path = _download_published(architecture)
        elif source.startswith("s3://"):
            path = _download_object(source, Path(folder))
        else:
            path = Path(source)
            if not path.is_file():
                raise NetworkError(
                    f"no weights at {path}; --weights takes a file, s3://BUCKET/KEY, {PUBLISHED} or {RANDOM}"
                )
        log.info("starts from %s, %s", source if source != PUBLISHED else path.name, file_version(path))
        yield path


def _download_published(architecture: str) -> Path:
    url = str(published(architecture).DEFAULT.url)
    name = PurePosixPath(urlsplit(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    log.info("downloading %s to %s", url, path)
    digest = torch.hub.HASH_REGEX.search(name)  # its beginning, as in resnet50-11ad3fa6.pth
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file gets its name only when it is whole and has the right hash.
        torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=False)
    except (OSError, RuntimeError) as error:
        raise NetworkError(
            f"the published weights of {architecture} cannot be downloaded from {url}: {error}. Where there is no way "
            "to the internet, download them elsewhere, and name the file (--weights FILE) or put it below weights/ in "
            f"the data bucket (--weights s3://BUCKET/weights/{name})"
        ) from error
    return path


def _download_object(source: str, folder: Path) -> Path:
    try:
        import boto3  # in SageMaker's images; nothing else in the training needs it
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise NetworkError(f"{source} cannot be fetched without boto3; install it, or name a local file") from None
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise NetworkError(f"--weights {source} is not of the form s3://BUCKET/KEY")
    path = folder / PurePosixPath(key).name
    s3 = boto3.client("s3")
    try:
        s3.download_file(bucket, key, str(path))
        with contextlib.suppress(ClientError):  # beside the weights of an artifact, and of nothing else
            s3.download_file(bucket, str(PurePosixPath(key).with_name(CARD_FILE)), str(folder / CARD_FILE))
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise NetworkError(
            f"{source} cannot be fetched: {error}. A training job may read the data bucket below weights/"
        ) from error
    return path
