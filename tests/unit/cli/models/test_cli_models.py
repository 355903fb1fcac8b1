"""`kennel models` and the registration by `kennel package`, in front of the registry of the local AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from emulator_fixtures import CALLER, IMAGE, ROLE, make_host
from fake_s3 import FakeS3
from fake_stage import FakeStage
from service_client import ServiceClient
from serving_fixtures import make_artifact
from typer.testing import CliRunner, Result

from cli.errors import AwsError, KennelError, NotReadyError
from cli.main import app
from cli.models import commands, registry
from cli.training import packaging
from emulator.sagemaker import SageMaker
from model.core.artifact_digest import VARIABLE
from model.core.packaging import package

GROUP = "kennel-dev"


class Registry:
    """A deployed stage, whose endpoint serves what `deploy_stacks` is given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.s3 = folder, FakeS3()
        self.sagemaker = ServiceClient(SageMaker(make_host(folder)), CALLER)
        self.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
        outputs = {"ModelPackageGroupName": GROUP, "EndpointName": "dogs"}
        self.stage = FakeStage("dev", outputs=outputs, s3=self.s3, sagemaker=self.sagemaker)
        self.stage.__dict__["find_outputs"] = lambda kind: outputs
        groups = self.sagemaker.list_model_package_groups
        self.stage.__dict__["resources"] = lambda *_: groups()["ModelPackageGroupSummaryList"]
        self.stage.configure("serving", artifact=str(folder / "build" / "model.tar.gz"))
        self.count, self.broken = 0, False

    def package(self, **card: Any) -> Path:
        self.count += 1
        source = make_artifact(self.folder / str(self.count), name=f"model {self.count}", **card)
        package(source, self.stage.artifact)
        return self.stage.artifact

    def deploy(self, stage: Any, kinds: list[str], artifact: Path, **_: Any) -> None:
        """Do what of `deploy_stacks` the registry sees."""
        registry.refuse_rejected(stage, artifact)
        if self.broken:
            raise AwsError("The stack was rolled back.")
        self.count += 1
        name, digest = f"n{self.count}", registry.archive_digest(artifact)
        container = {"Image": IMAGE, "ModelDataUrl": "s3://b/k", "Environment": {VARIABLE: digest}}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.stage.sagemaker.__dict__["describe_endpoint"] = lambda **_: {"EndpointConfigName": name}
        registry.note_deployment(self.stage)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["models", *arguments])

    def listed(self) -> list[tuple[int, str, bool]]:
        document = json.loads(self.run("list", "--json").stdout)
        return [(row["number"], row["status"], row["deployed"]) for row in document["versions"]]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry(tmp_path)
    made.stage.sagemaker.__dict__["describe_endpoint"] = lambda **_: {"EndpointConfigName": "none"}
    monkeypatch.setattr("cli.main.Stage", lambda *_: made.stage)
    monkeypatch.setattr(commands, "announce", lambda stage: None)
    monkeypatch.setattr(commands, "deploy_stacks", made.deploy)
    yield made


@pytest.fixture
def three(models: Registry) -> Registry:
    for number in (1, 2, 3):
        packaging.register_model(models.stage, registry.ModelCard.load(models.package().parents[1] / str(number)), None)
    for number in "12":
        assert models.run("approve", number).exit_code == 0
    return models


def failure(result: Result) -> KennelError:
    assert isinstance(result.exception, KennelError)
    return result.exception


def test_a_packaged_model_is_registered_once_with_what_is_known_of_it(models: Registry, capsys: Any) -> None:
    artifact = models.package(metrics={"test_accuracy": 0.912345, "note": "x" * 300}, precision="int8",
                              quantization={"accuracy_loss": 0.002})  # fmt: skip
    card = registry.ModelCard.load(models.folder / "1")
    for _ in range(2):
        packaging.register_model(models.stage, card, "kennel-dev-job")
        assert "Registered as version 1. To deploy it: kennel models approve 1" in capsys.readouterr().out
    (version,) = registry.versions(models.stage)
    assert (version.status, version.digest) == ("PendingManualApproval", registry.archive_digest(artifact))
    known = {"test_accuracy": "0.9123", "precision": "int8", "int8_accuracy_loss": "0.0020", "version": card.version}
    report = "s3://bucket/training/kennel-dev-job/output/output.tar.gz"
    assert {**version.metadata, **known, "training_job": "kennel-dev-job", "report": report} == version.metadata
    assert models.s3.objects[f"models/{version.digest[7:]}/model.tar.gz"] == artifact.read_bytes()


def test_only_an_approved_version_is_deployed_by_default_the_newest(three: Registry) -> None:
    error = failure(three.run("deploy", "3", "--yes"))
    assert (error.exit_code, str(error)) == (3, "Version 3 is not approved (status PendingManualApproval).")
    assert "There are: 3, 2, 1." in str(failure(three.run("approve", "7")))
    assert three.run("deploy", "--yes").exit_code == 0
    assert three.listed() == [(3, "PendingManualApproval", False), (2, "Approved", True), (1, "Approved", False)]
    assert registry.archive_digest(three.stage.artifact) == registry.deployed_digest(three.stage)
    assert "deployed" in three.run("list").stdout


def test_a_rollback_deploys_what_was_deployed_before_and_rejects_what_was(three: Registry) -> None:
    three.run("approve", "3")
    for number in "213":
        assert three.run("deploy", number, "--yes").exit_code == 0
    three.broken = True
    assert isinstance(failure(three.run("rollback", "--yes")), AwsError)
    three.broken = False
    with pytest.raises(NotReadyError, match="version 3 of the model registry, which is rejected"):
        three.deploy(three.stage, ["inference"], three.stage.artifact)  # as `kennel deploy` would
    assert three.run("rollback", "--yes").exit_code == 0
    assert three.listed() == [(3, "Rejected", False), (2, "Approved", False), (1, "Approved", True)]
    assert three.run("rollback", "--yes").exit_code == 0
    assert three.listed() == [(3, "Rejected", False), (2, "Approved", True), (1, "Rejected", False)]
    assert failure(three.run("rollback", "--yes")).exit_code == 3


@pytest.mark.parametrize("damage", ["replaced", "junk", "gone"])
def test_an_artifact_that_is_not_the_registered_one_is_never_deployed(three: Registry, damage: str) -> None:
    key = next(key for key in three.s3.objects if registry.versions(three.stage)[1].digest[7:] in key)
    before = registry.deployed_digest(three.stage)
    three.s3.objects[key] = three.package().read_bytes() if damage == "replaced" else b"junk"
    if damage == "gone":
        three.s3.objects.forget(key)
    message = str(failure(three.run("deploy", "2", "--yes")))
    assert {"replaced": "its digest is", "junk": "is not a model", "gone": "is gone"}[damage] in message
    assert registry.deployed_digest(three.stage) == before
    packaging.package_model(three.stage, three.stage.artifact, source=three.folder / "2")
    packaging.register_model(three.stage, registry.ModelCard.load(three.folder / "2"), None)
    assert three.run("deploy", "2", "--yes").exit_code == 0  # after what the message says to do


@pytest.mark.parametrize("error", [NotReadyError("No AWS region is set."), AwsError("No AWS credentials.")])
def test_packaging_works_without_aws_and_says_what_it_did_not_do(models, monkeypatch, error):
    models.stage.__dict__["output"] = Mock(side_effect=error)
    source = make_artifact(models.folder / "source")
    result = CliRunner().invoke(app, ["package", "--from", str(source)])
    assert (result.exit_code, models.stage.artifact.exists()) == (0, True)
    assert f"Not registered, so `kennel models` does not know it: {error}" in result.stdout


def test_all_versions_go_before_the_stack(three: Registry) -> None:
    registry.delete_versions(three.stage)
    assert registry.versions(three.stage) == []
    three.sagemaker.delete_model_package_group(ModelPackageGroupName=GROUP)
    registry.delete_versions(three.stage)  # a stack whose deletion failed is deleted again, without its group
