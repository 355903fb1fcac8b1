"""What SageMaker logs expires, unless somebody has decided otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.operating.log_retention import limit_logs
from infra.settings import NotebookSettings

TRAININGS, TRANSFORMS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"


def test_every_group_of_sagemaker_expires_from_its_first_line_on():
    aws = FakeAccount()
    aws.add_stack("kennel-dev-inference", EndpointName="dogs")
    aws.log_groups = {TRANSFORMS: [], f"{TRANSFORMS}-of-another": []}
    stage = FakeStage("dev", aws)
    stage.__dict__["settings"] = replace(stage.settings, notebook=NotebookSettings())
    limit_logs(stage, ["storage", "training", "inference"])
    own = {"/aws/sagemaker/NotebookInstances": 90, "/aws/sagemaker/Endpoints/dogs": 30}
    assert aws.retention == {TRAININGS: 90, TRANSFORMS: 30, **own}
    assert aws.retention.keys() <= aws.log_groups.keys()


def test_a_retention_that_somebody_has_decided_stays():
    aws = FakeAccount()
    aws.log_groups, aws.retention = {TRAININGS: []}, {TRAININGS: 3653}
    limit_logs(FakeStage("dev", aws), ["training"])
    assert aws.retention == {TRAININGS: 3653}


@pytest.mark.parametrize("operation", ["create_log_group", "put_retention_policy"])
def test_a_person_who_may_not_decide_is_told_and_the_deployment_stands(operation, capsys):
    aws = FakeAccount()
    aws.refused = {operation}
    limit_logs(FakeStage("dev", aws), ["training"])
    assert f"The log group {TRAININGS} may never expire: not authorized" in capsys.readouterr().out
