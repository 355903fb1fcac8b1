"""The table of the roles on the local AWS: after `cdk deploy` each does what it must, by requests, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from guarded_stage import TAGS, launch
from local_aws_harness import LocalAws, policy
from role_requests import performs, possible
from role_table import ACCOUNT, ROLES, expectations, names
from sagemaker_local import LocalSageMaker, local_aws
from templates import KINDS, PROJECT, SynthesisedStage

ANYBODY = policy({"Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"})


def cdk(aws: LocalAws, *arguments: str) -> None:
    command = ["cdk", *arguments, "--ci"]
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **aws.environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def aws(stages: list[SynthesisedStage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    """A local AWS on which both stages are deployed."""
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        made.iam.create_user(UserName="auditor")
        cdk(made, "bootstrap", f"aws://{ACCOUNT}/us-east-1")
        for stage in stages:
            cdk(made, "deploy", "--app", str(stage.assembly), "--all", "--require-approval", "never")
        yield made


@pytest.fixture(scope="module")
def known(aws: LocalAws, stages: list[SynthesisedStage]) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage, prefix in zip(stages, ("", "Other"), strict=True):
        physical = {}
        for kind in KINDS:
            made = aws.cloudformation.describe_stack_resources(StackName=stage.settings.stack_name(kind))
            physical |= {(kind, of["LogicalResourceId"]): of["PhysicalResourceId"] for of in made["StackResources"]}
        found |= names(stage, lambda *of, ids=physical: ids[of], prefix)
    aws.client("ecr").create_repository(repositoryName="pytorch")
    for folder in ("datasets", "code", "weights", "training", "checkpoints", "batch/input"):
        aws.s3.put_object(Bucket=found["DataBucket"].rpartition(":")[2], Key=f"{folder}/x", Body=b"x")
    instance = f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/"
    own, other = launch(aws, **TAGS), launch(aws, **{**TAGS, "stage": "serverless"})
    return found | {"OwnInstance": instance + own, "OtherInstance": instance + other}


@pytest.fixture(scope="module")
def urls(aws: LocalAws, known: dict[str, str]) -> dict[str, str]:
    """The function URLs, by the ARN of their alias."""
    aliases = (known["ClassifierLive"], known["OtherClassifierLive"])
    return {arn: aws.lambda_.get_function_url_config(FunctionName=arn)["FunctionUrl"] for arn in aliases}


def session(aws: LocalAws, role: str) -> dict[str, str]:
    """Credentials of a role: for a moment it trusts the account, as it does its service."""
    name = role.rpartition("/")[2]
    trusted = aws.iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    aws.iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(ANYBODY))
    made = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="attack")["Credentials"]
    aws.iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trusted))
    return made


@pytest.fixture(scope="module")
def keys(aws: LocalAws, stages: list[SynthesisedStage], known: dict[str, str]) -> dict[str, dict[str, str]]:
    """Credentials of every role of the table."""
    found = {"Caller": aws.user("caller")}
    aws.iam.attach_user_policy(UserName="caller", PolicyArn=known["ClassifierCallers"])
    for stage, prefix in zip(stages, ("", "Other"), strict=True):
        for name, arn in names(stage, lambda *_: "", prefix).items():
            if arn.endswith(":role/"):
                role = aws.iam.get_role(RoleName=known[name].rpartition("/")[2])["Role"]
                found[f"{prefix} {role['Description']}".strip()] = session(aws, role["Arn"])
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_all_that_it_must_and_is_refused_all_that_it_must_not(
    role: str,
    aws: LocalAws,
    known: dict[str, str],
    keys: dict[str, dict[str, str]],
    urls: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    expected = {case: may for case, may in expectations(known)[role].items() if possible(case, urls)}
    refused_first = sorted(expected, key=expected.__getitem__)
    assert {case: performs(aws, keys[role], case, urls) for case in refused_first} == expected
    record_property("rights of roles that were used", list(expected.values()).count(True))
    record_property("requests of roles that were refused", list(expected.values()).count(False))


def test_a_caller_over_the_limit_is_refused_and_another_is_not(
    aws: LocalAws,
    known: dict[str, str],
    urls: dict[str, str],
    stages: list[SynthesisedStage],
    record_property: Callable[[str, object], None],
) -> None:
    limit, url = stages[0].settings.function.caller_requests_per_minute or 0, urls[known["ClassifierLive"]]
    calling = policy({"Action": "lambda:*", "Resource": "*"})
    greedy, modest = (aws.user(f"{name}-caller", calling) for name in ("greedy", "modest"))
    began = time.time() // 60
    with ThreadPoolExecutor(3) as pool:
        answers = [*pool.map(lambda _: aws.call(url, b"image", greedy), range(4 * limit))]
    taken = [answer for answer in answers if b"You may send" not in answer.data]
    minutes = int(time.time() // 60 - began) + 1
    assert limit <= len(taken) <= limit * minutes
    assert not {answer.status for answer in taken} & {403, 429}
    refused = [answer for answer in answers if answer not in taken]
    assert all((answer.status, int(answer.headers["retry-after"]) <= 60) == (429, True) for answer in refused)
    assert aws.call(url, b"image", modest).status not in (403, 429)
    record_property("callers: requests over the limit of a caller refused", len(refused))
