"""The AWS that the environment names: clients, and what the deployed stacks say of themselves.

Nothing here knows whether that is a real account or the local AWS; the standard variables (AWS_ENDPOINT_URL,
AWS_REGION, credentials or a profile) decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions

from cli.errors import AwsError, NotReadyError, aws_errors
from infra import settings as stage_settings

if TYPE_CHECKING:
    import boto3

ROOT = Path(__file__).resolve().parent.parent  # app.py, cdk.json and node_modules are here


@dataclass(frozen=True)
class Stage:
    """One stage of the application (`local`, `dev`, `prod`) in the account that the environment names."""

    name: str

    @cached_property
    def settings(self) -> stage_settings.Settings:
        """The stage's settings.

        Raises
        ------
        NotReadyError
            When the stage does not exist or its file has errors; the message lists all of them.
        """
        try:
            return stage_settings.load(self.name)
        except stage_settings.SettingsError as error:
            raise NotReadyError(str(error)) from error

    @cached_property
    def session(self) -> boto3.session.Session:
        """One boto3 session for all clients (boto3 is imported on first use: it costs 0.4 s)."""
        import boto3.session

        return boto3.session.Session()

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client; `options` as for `boto3.client`."""
        with aws_errors():
            return self.session.client(service, **options)

    @property
    def region(self) -> str:
        """The region that the environment names."""
        return str(self.client("sts").meta.region_name)

    def stack_name(self, kind: str) -> str:
        """The CloudFormation name of the stack `kind` (`storage`, `training`, `inference`)."""
        return self.settings.stack_name(kind)

    def find_outputs(self, kind: str) -> dict[str, str] | None:
        """Outputs of a stack by key, or None when the stack is not there or was never completely created."""
        name = self.stack_name(kind)
        with aws_errors():
            try:
                stack = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
            except botocore.exceptions.ClientError as error:
                if "does not exist" in error.response.get("Error", {}).get("Message", ""):
                    return None
                raise
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])} or None

    def output(self, kind: str, key: str) -> str:
        """One output of a deployed stack.

        Raises
        ------
        NotReadyError
            When the stack is not deployed in this account and region.
        """
        outputs = self.find_outputs(kind)
        if outputs is None or key not in outputs:
            raise NotReadyError(
                f"The stack {self.stack_name(kind)} is not deployed in this account and region.",
                "Deploy it first: kennel deploy",
            )
        return outputs[key]

    @property
    def artifact(self) -> Path:
        """Where the model.tar.gz of this stage is packaged to and deployed from."""
        return ROOT / self.settings.serving.artifact

    @property
    def data_bucket(self) -> str:
        """Name of the bucket that holds data sets, code and the outputs of trainings."""
        return self.output("storage", "DataBucketName")


def delete_objects(s3: Any, bucket: str, objects: Sequence[dict[str, str]]) -> None:
    """Delete any number of objects, each given by its Key and, for one of its versions, its VersionId.

    Raises
    ------
    AwsError
        When some are left: DeleteObjects itself succeeds all the same.
    """
    for start in range(0, len(objects), 1000):  # DeleteObjects takes at most 1000
        delete = {"Objects": objects[start : start + 1000], "Quiet": True}
        if errors := s3.delete_objects(Bucket=bucket, Delete=delete).get("Errors"):
            example = f"{errors[0].get('Key')}: {errors[0].get('Message')}"
            raise AwsError(f"{len(errors)} objects of {bucket} could not be deleted, such as {example}")
