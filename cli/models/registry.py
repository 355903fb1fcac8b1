"""The stage's model package group: one version for each packaged model, and the artifacts in the data bucket.

An artifact is known by the digest of its contents, which is also in the environment of the model that serves it. So
what is deployed is read from what runs. A version's metadata say how good it is, and when it was last deployed.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.errors import AwsError, NotReadyError, aws_errors
from cli.operating.endpoints import endpoint_config
from cli.parallel import map_unordered
from cli.serving.container_image import stage_tag
from infra.bucket_layout import MODELS, TRAINING_OUTPUT
from model.core.archives import archive_digest
from model.core.artifact import ArtifactError, ModelCard
from model.core.artifact_digest import VARIABLE

APPROVED, REJECTED = "Approved", "Rejected"
_GROUP = "ModelPackageGroupName"
_DEPLOYED = "deployed"
_ARTIFACT = "model.tar.gz"
#: What a value of CustomerMetadataProperties may be; anything else in a card is left out.
_VALUE = re.compile(r"[\w .:/=+@-]{1,256}", re.ASCII)
_DESCRIBING_THREADS = 8


@dataclass(frozen=True)
class Version:
    """One version of the group; `metadata` are those that `register` writes."""

    number: int
    arn: str
    status: str
    registered: datetime
    metadata: dict[str, str]

    @property
    def digest(self) -> str:
        """The digest of the artifact's contents."""
        return self.metadata.get("digest", "")

    @property
    def deployed(self) -> str:
        """When it was last deployed, in ISO format; empty when it never was."""
        return self.metadata.get(_DEPLOYED, "")


def versions(stage: Stage) -> list[Version]:
    """Return all versions of the stage's model, the newest first."""
    sagemaker = stage.client("sagemaker")

    def describe(arn: str) -> Version:
        found = sagemaker.describe_model_package(ModelPackageName=arn)
        status, metadata = found["ModelApprovalStatus"], found.get("CustomerMetadataProperties", {})
        return Version(found["ModelPackageVersion"], arn, status, found["CreationTime"], metadata)

    group = {_GROUP: stage.output("storage", _GROUP)}
    with aws_errors():
        listed = stage.listed("sagemaker", "list_model_packages", "ModelPackageSummaryList", **group)
        arns = [package["ModelPackageArn"] for package in listed]
        found = [version for _, version in map_unordered(describe, arns, threads=_DESCRIBING_THREADS)]
    return sorted(found, key=lambda version: version.number, reverse=True)


def register(stage: Stage, artifact: Path, card: ModelCard, job: str | None) -> int:
    """Upload a packaged model and make it a version that waits for approval; the number it has, or had before.

    `job` is the training job whose model it is, None where it comes from a file.
    """
    from model.core import packaging  # numpy and the inference engine: not needed by the other commands

    group, bucket, digest = stage.output("storage", _GROUP), stage.data_bucket, archive_digest(artifact)
    s3, folder = stage.client("s3"), f"{MODELS}/{digest.removeprefix('sha256:')}"
    own = {"ExpectedBucketOwner": stage.account}
    metrics: dict[str, Any] = {}
    with aws_errors(), tempfile.TemporaryDirectory() as name:
        # Of a version that there is, too: its artifact may be gone.
        s3.upload_file(str(artifact), bucket, f"{folder}/{_ARTIFACT}", ExtraArgs=own)
        for version in versions(stage):
            if version.digest == digest:
                return version.number
        packaging.unpack(artifact, Path(name), (packaging.METRICS_FILE,))
        if (file := Path(name, packaging.METRICS_FILE)).exists():
            key = f"{folder}/{packaging.METRICS_FILE}"
            s3.upload_file(str(file), bucket, key, ExtraArgs=own)
            statistics = {"ContentType": "application/json", "S3Uri": f"s3://{bucket}/{key}"}
            metrics = {"ModelMetrics": {"ModelQuality": {"Statistics": statistics}}}
        metadata = {"digest": digest, **_metadata(card)}
        if job is not None:
            metadata |= {"training_job": job, "report": f"s3://{bucket}/{TRAINING_OUTPUT}/{job}/output/output.tar.gz"}
        container = {"Image": _image(stage), "ModelDataUrl": f"s3://{bucket}/{folder}/{_ARTIFACT}"}
        types = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
        arn = stage.client("sagemaker").create_model_package(
            ModelPackageGroupName=group,
            InferenceSpecification={"Containers": [container], **types},
            ModelApprovalStatus="PendingManualApproval",
            CustomerMetadataProperties=metadata,
            **metrics,
        )["ModelPackageArn"]
    return int(arn.rpartition("/")[2])


def set_status(stage: Stage, version: Version, status: str, reason: str) -> None:
    """Approve or reject a version."""
    with aws_errors():
        stage.client("sagemaker").update_model_package(
            ModelPackageArn=version.arn, ModelApprovalStatus=status, ApprovalDescription=reason
        )


def deployed_digest(stage: Stage) -> str | None:
    """Return the digest in the environment of the model that the endpoint serves; None where there is none."""
    endpoint = (stage.find_outputs("inference") or {}).get("EndpointName")
    if endpoint is None:
        return None
    with suppress(NotReadyError), aws_errors(missing=NotReadyError("There is no endpoint.")):
        variants = endpoint_config(stage, endpoint)["ProductionVariants"]
        model = stage.client("sagemaker").describe_model(ModelName=variants[0]["ModelName"])
        digest: str | None = model["PrimaryContainer"].get("Environment", {}).get(VARIABLE)
        return digest
    return None


def refuse_rejected(stage: Stage, artifact: Path) -> None:
    """Raise NotReadyError for an artifact whose version is rejected, as `kennel models rollback` leaves a bad one."""
    digest = archive_digest(artifact)
    try:
        own = [version for version in _known(stage) if version.digest == digest]
    except AwsError as error:
        console.print(f"Not checked whether the model registry has the model as rejected: {error}")
        return
    if own and all(version.status == REJECTED for version in own):
        raise NotReadyError(
            f"{artifact} is version {own[0].number} of the model registry, which is rejected.",
            f"Deploy an approved version: {stage.kennel} models deploy. Or approve this one again: {stage.kennel} "
            f"models approve {own[0].number}",
        )


def deployed_version(stage: Stage) -> tuple[str, Version | None]:
    """Return the digest that is deployed, and its version if it is registered; a NotReadyError says that none is."""
    if (digest := deployed_digest(stage)) is None:
        raise NotReadyError("no endpoint says which model it serves")
    return digest, next((version for version in versions(stage) if version.digest == digest), None)


def note_deployment(stage: Stage) -> None:
    """Write into the version that is deployed when that happened, if the model is registered at all.

    `kennel models rollback` goes by it. The deployment itself has succeeded, so a refusal is no error.
    """
    now = datetime.now(UTC).isoformat()
    try:
        digest = deployed_digest(stage)
        for version in _known(stage):
            if version.digest == digest:
                with aws_errors():
                    stage.client("sagemaker").update_model_package(
                        ModelPackageArn=version.arn, CustomerMetadataProperties={_DEPLOYED: now}
                    )
    except AwsError as error:
        console.print(f"Not noted in the model registry, so `kennel models rollback` does not know of it: {error}")


def fetch(stage: Stage, version: Version, destination: Path) -> None:
    """Fetch the artifact of a version; a NotReadyError says that it is gone, or is another one by now."""
    key = f"{MODELS}/{version.digest.removeprefix('sha256:')}/{_ARTIFACT}"
    location = f"s3://{stage.data_bucket}/{key}"
    gone = NotReadyError(f"The artifact of version {version.number} is gone: {location}.", "Package the model again.")
    own = {"ExpectedBucketOwner": stage.account}
    with aws_errors(missing=gone), progress_bar("Fetching the model"):
        stage.client("s3").download_file(stage.data_bucket, key, str(destination), ExtraArgs=own)
    try:
        found = archive_digest(destination)
    except ArtifactError as error:
        raise NotReadyError(f"{location} is not a model artifact: {error}") from error
    if found != version.digest:
        raise NotReadyError(
            f"{location} is not what was registered as version {version.number}: its digest is {found}, that of the "
            f"version is {version.digest or 'not known'}.",
            "Find out what has written it; package the model again.",
        )


def delete_versions(stage: Stage) -> None:
    """Delete all versions of the stage's model: CloudFormation deletes no group that has some."""
    with aws_errors():
        for version in _known(stage):
            stage.client("sagemaker").delete_model_package(ModelPackageName=version.arn)


def _known(stage: Stage) -> list[Version]:
    """Return all versions; none where there is no group: not deployed, or gone with a first try to delete its stack."""
    return versions(stage) if stage.resources("storage", "AWS::SageMaker::ModelPackageGroup") else []


def _metadata(card: ModelCard) -> dict[str, str]:
    """Return what a card says of a model, as far as a version's metadata can hold it."""
    measured = {name: card.metrics.get(name) for name in ("test_accuracy", "valid_accuracy")}
    lost = card.quantization.get("accuracy_loss") if card.precision == "int8" else None
    numbers = {**measured, "int8_accuracy_loss": lost}
    texts = {name: getattr(card, name) for name in ("architecture", "precision", "version", "training_job")}
    texts |= {name: f"{value:.4f}" for name, value in numbers.items() if isinstance(value, int | float)}
    return {name: str(text) for name, text in texts.items() if _VALUE.fullmatch(str(text)) and text is not None}


def _image(stage: Stage) -> str:
    image = stage.settings.serving.image
    return f"{stage.output('storage', 'ImageRepositoryUri')}:{stage_tag(stage)}" if image == "own" else image
