"""What a training job leaves in S3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.platform.awsapi import Payload
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.roles import Role
from emulator.sagemaker.training.container import TrainingContainer

#: Folder below /opt/ml, and the name of its archive, or of its folder in S3 when it is not compressed.
_OUTPUTS = ((("model",), "model"), (("output", "data"), "output"))


def _location(job: Payload) -> tuple[str, str]:
    """Bucket and prefix; ArtifactError when the job's ``S3OutputPath`` is no location in S3."""
    bucket, prefix = artifacts.parse_s3_url(job["OutputDataConfig"]["S3OutputPath"])
    return bucket, "/".join(part for part in (prefix.strip("/"), job["TrainingJobName"], "output") if part)


def model_location(job: Payload) -> str:
    """Where the model of a training job is or will be: SageMaker says so from the beginning, whatever comes of it."""
    bucket, base = _location(job)
    suffix = "model/" if job["OutputDataConfig"].get("CompressionType") == "NONE" else "model.tar.gz"
    return f"s3://{bucket}/{base}/{suffix}"


def upload(role: Role, s3: Any, job: Payload, containers: Sequence[TrainingContainer], scratch: Path) -> None:
    """Upload what the program left in its folders; archives are made in `scratch`."""
    output = job["OutputDataConfig"]
    bucket, base = _location(job)
    encryption, needed = {}, "s3:PutObject"
    try:
        if "KmsKeyId" in output:
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": output["KmsKeyId"]}
            needed = "kms:Encrypt and s3:PutObject"
            role.client("kms").encrypt(KeyId=output["KmsKeyId"], Plaintext=b"\0")
        for folder, name in _OUTPUTS:
            directories = [container.path(*folder) for container in containers]
            archive = scratch / f"{name}.tar.gz"
            if output.get("CompressionType") == "NONE":
                merged = artifacts.merge(directories).items()
                files = {f"{name}/{below}": path for below, path in merged if path.is_file()}
            else:
                files = {archive.name: archive} if artifacts.pack(directories, archive) else {}
            for below, path in files.items():
                with path.open("rb") as file:
                    s3.upload_fileobj(file, bucket, f"{base}/{below}", ExtraArgs=encryption)
    except (ClientError, BotoCoreError, OSError) as error:
        kind, advice = "InternalServerError", ""
        if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
            kind, advice = "ClientError", f'. Please ensure that the role "{role.arn}" has "{needed}" permissions there'
        problem = f"{kind}: Uploading to s3://{bucket}/{base} failed{advice}: {artifacts.reason(error)}"
        raise ArtifactError(problem) from None
