"""What a training job takes from S3 into the folders of its instances, and what it leaves there."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse
from emulator.sagemaker import artifacts
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import JobFailed
from emulator.sagemaker.training.container import TrainingContainer, synced

_REPORTED_TOGETHER = 1000  # objects
#: Archives, by the folder below /opt/ml that is packed into them.
_OUTPUTS = {"model": "model.tar.gz", "output/data": "output.tar.gz"}


def download(
    role: Role,
    s3: Any,
    source: Payload,
    folders: Sequence[Path],
    stopped: Callable[[], bool],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Bring the objects of a source to the folder of every instance, or each its share, until `stopped` says yes.

    `report` is called now and then with how many of the objects are there, and how many will be.
    """
    bucket, prefix = artifacts.parse_s3_url(source["S3Uri"])
    if source["S3DataType"] == "ManifestFile":
        bucket, targets = artifacts.read_manifest(s3, bucket, prefix)
    else:
        keys = artifacts.list_keys(s3, bucket, prefix)
        targets = [(key, artifacts.relative_key(key, prefix)) for key in keys]
    _refuse_nothing(role, source["S3Uri"], bool(targets))
    done = 0
    filled = folders if source.get("S3DataDistributionType") == "ShardedByS3Key" else folders[:1]
    for number, folder in enumerate(filled):
        folder.mkdir(parents=True, exist_ok=True)
        share = targets[number :: len(filled)]
        for start in range(0, len(share), _REPORTED_TOGETHER):
            done += len(artifacts.fetch_all(s3, bucket, share[start : start + _REPORTED_TOGETHER], folder, stopped))
            report(done, len(targets))
    for folder in folders[len(filled) :]:
        shutil.copytree(folders[0], folder, dirs_exist_ok=True)


def check_objects(role: Role, url: str) -> None:
    """Refuse a location of S3 in which the role sees no object."""
    bucket, prefix = artifacts.parse_s3_url(url)
    try:
        answer = role.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except ClientError as error:
        _refuse_nothing(role, url, False, f" Error message from S3: {error.response['Error']['Message']}")
    else:
        _refuse_nothing(role, url, bool(answer["KeyCount"]))


def _refuse_nothing(role: Role, url: str, found: bool, from_s3: str = "") -> None:
    refuse(
        not found,
        f'No S3 objects found under S3 URL "{url}" given in input data source. Please ensure that the bucket exists in '
        f"the selected region ({role.region}), that objects exist under that S3 prefix, and that the role "
        f'"{role.arn}" has "s3:ListBucket" permissions on bucket "{artifacts.parse_s3_url(url)[0]}".{from_s3}',
    )


def download_source(s3: Any, containers: Sequence[TrainingContainer], archive: Path) -> None:
    """Unpack the source directory, if the job has one, into ``code`` of every instance, by way of `archive`."""
    for container in containers:
        location, code = container.toolkit_parameter("submit_directory"), container.path("code")
        if location is None:
            continue
        if "://" in location:
            if not archive.exists():
                bucket, key = artifacts.parse_s3_url(location)
                artifacts.fetch_all(s3, bucket, [(key, archive.name)], archive.parent)
            artifacts.unpack(archive, code)
        elif (path := container.outside(location)).is_dir():  # below /opt/ml, where a channel has brought it
            shutil.copytree(path, code, dirs_exist_ok=True)
        else:
            artifacts.unpack(path, code)


def _output_location(job: Payload) -> tuple[str, str]:
    bucket, prefix = artifacts.parse_s3_url(job["OutputDataConfig"]["S3OutputPath"])
    return bucket, "/".join(filter(None, (prefix.strip("/"), job["TrainingJobName"], "output")))


def model_location(job: Payload) -> str:
    """Where the model of a training job is or will be: SageMaker says so from the beginning, whatever comes of it."""
    bucket, base = _output_location(job)
    return f"s3://{bucket}/{base}/model.tar.gz"


def upload_outputs(role: Role, s3: Any, job: Payload, containers: Sequence[TrainingContainer], scratch: Path) -> None:
    """Upload what the program left in its folders, as archives that are made in `scratch`."""
    bucket, base = _output_location(job)
    with uploading(role, job["OutputDataConfig"], f"s3://{bucket}/{base}") as encryption:
        for folder, name in _OUTPUTS.items():
            archive = scratch / name
            folders = [container.path(folder) for container in containers if container.inside(container.path(folder))]
            if artifacts.pack(folders, archive):
                with archive.open("rb") as file:
                    s3.upload_fileobj(file, bucket, f"{base}/{name}", ExtraArgs=encryption)
        for (local, url), container in itertools.product(synced(job), containers):
            upload_folder(s3, container, local, url, {})


@contextlib.contextmanager
def uploading(role: Role, output: Payload, to: str) -> Iterator[dict[str, str]]:
    """Give the encryption of what a job writes; what fails in the block fails the job and names the role's rights."""
    needed = "s3:PutObject"
    try:
        if key := output.get("KmsKeyId"):
            needed = "kms:Encrypt and s3:PutObject"
            role.client("kms").encrypt(KeyId=key, Plaintext=b"\0")
        yield artifacts.encryption(output)
    except UnicodeEncodeError as error:
        raise JobFailed(f"ClientError: Uploading to {to} failed: a name is not UTF-8: {error.object!a}") from None
    except (ClientError, BotoCoreError, OSError) as error:
        kind, advice = "InternalServerError", ""
        if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
            kind, advice = "ClientError", f'. Please ensure that the role "{role.arn}" has "{needed}" permissions there'
        raise JobFailed(f"{kind}: Uploading to {to} failed{advice}: {artifacts.reason(error)}") from None


def upload_folder(s3: Any, container: TrainingContainer, local: str, url: str, encryption: dict[str, str]) -> None:
    """Upload the files of a folder of the program's, each below the location by its path."""
    folder, (bucket, prefix) = container.outside(local), artifacts.parse_s3_url(url)
    for path in container.files(folder):
        key = "/".join(filter(None, (prefix.rstrip("/"), path.relative_to(folder).as_posix())))
        with path.open("rb") as file:
            s3.upload_fileobj(file, bucket, key, ExtraArgs=encryption)
