"""The notebook instance, which stages have only when their settings say so: one property a test."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from templates import SynthesisedStage, allowed, role_for, text

from infra.job_names import tuning_job_name
from infra.settings import NotebookSettings, load

JOB_KINDS = ("training-job", "hyper-parameter-tuning-job")


def arn(service: str) -> str:
    return f"arn:<AWS::Partition>:{service}:<AWS::Region>:<AWS::AccountId>"


@pytest.fixture(scope="module")
def stage(synthesise) -> SynthesisedStage:
    return synthesise(replace(load("dev"), notebook=NotebookSettings(idle_minutes=45)))


@pytest.fixture(scope="module")
def in_network(synthesise) -> SynthesisedStage:
    notebook = NotebookSettings(subnet_id="subnet-0123456789abcdef0", security_group_ids=("sg-0123456789abcdef0",))
    return synthesise(replace(load("dev"), notebook=notebook))


@pytest.fixture(scope="module")
def notebook(stage: SynthesisedStage) -> dict:
    return stage.properties("training", "AWS::SageMaker::NotebookInstance")


def test_it_is_small_encrypted_and_of_the_current_platform(notebook):
    assert "DataKey" in text(notebook["KmsKeyId"])
    assert notebook["InstanceMetadataServiceConfiguration"] == {"MinimumInstanceMetadataServiceVersion": "2"}
    assert (notebook["InstanceType"], notebook["PlatformIdentifier"]) == ("ml.t3.medium", "notebook-al2023-v1")


def test_in_a_network_of_the_settings_there_is_no_other_way_out(in_network):
    notebook = in_network.properties("training", "AWS::SageMaker::NotebookInstance")
    assert notebook["DirectInternetAccess"] == "Disabled"
    assert notebook["SubnetId"] == "subnet-0123456789abcdef0"
    assert notebook["SecurityGroupIds"] == ["sg-0123456789abcdef0"]


def test_it_stops_itself(stage, notebook):
    config = stage.properties("training", "AWS::SageMaker::NotebookInstanceLifecycleConfig")
    script = config["OnStart"][0]["Content"]["Fn::Base64"]
    assert "stop_when_idle.py 2700" in script
    assert len(script.encode()) * 4 / 3 <= 16384  # SageMaker's limit, in base64
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "NotebookInstanceLifecycleConfigName" in text(notebook["LifecycleConfigName"])


@pytest.mark.parametrize("stage_name", ["dev", "production"])
def test_it_may_start_what_the_command_line_starts(synthesise, stage_name):
    settings = replace(load("dev"), stage=stage_name, notebook=NotebookSettings())
    patterns = allowed(role_for(synthesise(settings), "training", "Notebook instance"))["sagemaker:CreateTrainingJob"]
    tuning_job = tuning_job_name(settings, datetime(2026, 1, 1, tzinfo=UTC))
    for kind in JOB_KINDS:
        job = f"{arn('sagemaker')}:{kind}/{tuning_job}"
        assert [pattern for pattern in patterns if job.startswith(pattern.removesuffix("*"))]
