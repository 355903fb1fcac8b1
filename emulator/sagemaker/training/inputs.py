"""A training job's inputs, brought from S3 into the folders of its instances."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emulator.platform.awsapi import Payload
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.training.container import TrainingContainer

_REPORTED_TOGETHER = 1000  # objects


class NoObjectsError(ArtifactError):
    """A channel's location holds nothing."""

    def __init__(self, url: str) -> None:
        super().__init__(f"there are no objects under {url}.")
        self.url = url


def download_channel(
    s3: Any,
    channel: Payload,
    containers: Sequence[TrainingContainer],
    stopped: Callable[[], bool],
    report: Callable[[str, int, int], None],
) -> None:
    """Bring a channel's objects to every instance, or to each its share of them, until `stopped` says yes.

    `report` is called now and then with the channel's name, how many of its objects are there, and how many will be.
    """
    source, name = channel["DataSource"]["S3DataSource"], channel["ChannelName"]
    bucket, prefix = artifacts.parse_s3_url(source["S3Uri"])
    keys = artifacts.list_keys(s3, bucket, prefix)
    if not keys:
        raise NoObjectsError(source["S3Uri"])
    done = 0
    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
    for number, container in enumerate(containers):
        directory = container.path("input", "data", name)
        if number > 0 and not sharded:
            shutil.copytree(containers[0].path("input", "data", name), directory)
            continue
        directory.mkdir(parents=True, exist_ok=True)
        own = keys[number :: len(containers)] if sharded else keys
        targets = [(key, artifacts.relative_key(key, prefix)) for key in own]
        for start in range(0, len(targets), _REPORTED_TOGETHER):
            together = targets[start : start + _REPORTED_TOGETHER]
            done += len(artifacts.fetch_all(s3, bucket, together, directory, stopped))
            report(name, done, len(keys))


def download_source(s3: Any, containers: Sequence[TrainingContainer], archive: Path) -> None:
    """Unpack the source directory, if the job has one, into ``code`` of every instance, by way of `archive`."""
    for container in containers:
        location, code = container.submit_directory, container.path("code")
        if location is None:
            continue
        if "://" in location:
            if not archive.exists():
                artifacts.fetch(s3, *artifacts.parse_s3_url(location), archive)
            artifacts.unpack(archive, code)
        elif Path(location).is_dir():  # below /opt/ml, where a channel has brought it
            shutil.copytree(location, code, dirs_exist_ok=True)
        else:
            artifacts.unpack(Path(location), code)
