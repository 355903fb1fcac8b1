"""The AWS that the environment names: clients, and what the deployed stacks say of themselves.

Nothing here knows whether that is a real account or the local AWS; the stage's settings and the standard variables
(AWS_ENDPOINT_URL, AWS_REGION, credentials or a profile) decide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions

from cli.console import error_console
from cli.errors import LOCAL_HINT, AwsError, NotReadyError, aws_errors
from infra import settings as stage_settings
from infra.validation import SettingsError

if TYPE_CHECKING:
    import boto3

ROOT = Path(__file__).resolve().parent.parent  # app.py, cdk.json and node_modules are here
#: boto3 reads only the second of them, the CDK prefers the first: the commands read both and want them to agree.
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


@dataclass(frozen=True)
class Stage:
    """One stage of the application (`local`, `dev`, `prod`) in the account that the environment names."""

    name: str
    kennel: str = "kennel"  # the command with which a hint reaches this very stage

    @cached_property
    def settings(self) -> stage_settings.Settings:
        """The stage's settings; a stage that does not exist, or has errors, is a NotReadyError."""
        try:
            return stage_settings.load(self.name)
        except SettingsError as error:
            raise NotReadyError(str(error)) from error

    @cached_property
    def region(self) -> str:
        """The region that the settings name, else the environment's variables, else the profile.

        A NotReadyError says that none of them does, or that the variables and the settings disagree.
        """
        named = {f"{name} in the environment": os.environ[name] for name in REGION_VARIABLES if os.environ.get(name)}
        if self.settings.region:
            named = {f"region in {self.settings_file}": self.settings.region, **named}
        if len(set(named.values())) > 1:
            raise NotReadyError(
                f"Two regions are named: {', '.join(f'{source} is {region}' for source, region in named.items())}.",
                f"Unset {' and '.join(REGION_VARIABLES)}, or give them the region that you mean.",
            )
        session = self._new_session(None)
        region = next(iter(named.values()), None) or session.region_name
        if region is None:
            with aws_errors():
                if session.get_credentials() is None:  # the first of two things to do
                    raise botocore.exceptions.NoCredentialsError
            raise NotReadyError(
                "No AWS region is set.",
                f"Name one: export AWS_REGION=us-east-1, or account and region in {self.settings_file}.\n{LOCAL_HINT}",
            )
        return str(region)

    @cached_property
    def account(self) -> str:
        """The account of the credentials; when the settings name another one, that is a NotReadyError."""
        with aws_errors():
            account = str(self.session.client("sts").get_caller_identity()["Account"])
        if self.settings.account not in (None, account):
            raise NotReadyError(
                f"The credentials are of account {account}, but {self.settings_file} names {self.settings.account}.",
                "Use credentials of that account (AWS_PROFILE), or another stage: kennel --stage NAME",
            )
        return account

    @property
    def settings_file(self) -> str:
        """Where the stage's settings are, for a person."""
        return f"infra/environments/{self.name}.toml"

    @cached_property
    def session(self) -> boto3.session.Session:
        """One boto3 session for all clients."""
        return self._new_session(self.region)

    def _new_session(self, region: str | None) -> boto3.session.Session:
        import boto3.session  # on first use: it costs 0.4 s

        with aws_errors():  # a profile that does not exist
            return boto3.session.Session(region_name=region)

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client, unless the settings name another account or region than the environment."""
        if self.settings.account:
            _ = self.account  # refuses another one
        with aws_errors():
            return self.session.client(service, **options)

    def listed(self, service: str, operation: str, member: str, **request: Any) -> Iterator[Any]:
        """Yield what an operation lists in a member of its answers, page after page."""
        with aws_errors():
            for page in self.client(service).get_paginator(operation).paginate(**request):
                yield from page.get(member, [])

    @property
    def place(self) -> str:
        """Where the stage is, for a person who is about to change it."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        return f"account {self.account}, region {self.region}{f', at {endpoint}' if endpoint else ''}"

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything of the stage, as the stacks set them."""
        return {"project": self.settings.project, "stage": self.name}

    @property
    def tag_list(self) -> list[dict[str, str]]:
        """These tags as a request has them: costs are allocated by them."""
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]

    def stack_name(self, kind: str) -> str:
        """Return the CloudFormation name of the stack `kind` (`storage`, `training`, `inference`)."""
        return self.settings.stack_name(kind)

    def find_outputs(self, kind: str) -> dict[str, str] | None:
        """Return outputs of a stack by key, or None when the stack is not there or was never completely created."""
        stack = self.find_stack(self.stack_name(kind)) or {}
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])} or None

    def find_stack(self, name: str) -> dict[str, Any] | None:
        """Return what CloudFormation says of a stack, None when there is none of that name."""
        with aws_errors():
            try:
                stack: dict[str, Any] = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
            except botocore.exceptions.ClientError as error:
                if "does not exist" in error.response.get("Error", {}).get("Message", ""):
                    return None
                raise
        return stack

    def resources(self, kind: str, resource_type: str | None = None) -> list[dict[str, Any]]:
        """Return what a stack holds, of a type or at all; nothing where there is no such stack."""
        if self.find_stack(name := self.stack_name(kind)) is None:
            return []
        listing = ("list_stack_resources", "StackResourceSummaries")
        return [
            resource
            for resource in self.listed("cloudformation", *listing, StackName=name)
            if resource_type in (None, resource["ResourceType"])
            and resource["ResourceStatus"] != "DELETE_COMPLETE"
            and resource.get("PhysicalResourceId")
        ]

    def output(self, kind: str, key: str) -> str:
        """Return one output of a stack; when it is not deployed in this account and region, raise NotReadyError."""
        outputs = self.find_outputs(kind)
        if outputs is None or key not in outputs:
            raise NotReadyError(
                f"The stack {self.stack_name(kind)} is not deployed in {self.place}.",
                f"Deploy it first: {self.kennel} deploy",
            )
        return outputs[key]

    @property
    def artifact(self) -> Path:
        """Where the model.tar.gz of this stage is packaged to and deployed from."""
        return ROOT / self.settings.artifact

    @property
    def data_bucket(self) -> str:
        """Name of the bucket that holds data sets, code and the outputs of trainings."""
        return self.output("storage", "DataBucketName")


def announce(stage: Stage) -> None:
    """Say which account and region a command is about to change."""
    error_console.print(f"Stage {stage.name}: {stage.place}.")  # standard output is the command's result


def delete_objects(s3: Any, bucket: str, objects: Sequence[dict[str, str]]) -> None:
    """Delete any number of objects, given by Key and, for a version, VersionId; an AwsError if some are left."""
    for start in range(0, len(objects), 1000):  # DeleteObjects takes at most 1000, and succeeds although some stay
        delete = {"Objects": objects[start : start + 1000], "Quiet": True}
        if errors := s3.delete_objects(Bucket=bucket, Delete=delete).get("Errors"):
            example = f"{errors[0].get('Key')}: {errors[0].get('Message')}"
            raise AwsError(f"{len(errors)} objects of {bucket} could not be deleted, such as {example}")
