"""The notebook instance, which stages have only when their settings say so."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from templates import allowed, role_for

from infra.job_names import tuning_job_name
from infra.settings import NotebookSettings, load

JOB_KINDS = ("training-job", "hyper-parameter-tuning-job")


def arn(service: str) -> str:
    return f"arn:<AWS::Partition>:{service}:<AWS::Region>:<AWS::AccountId>"


def test_it_stops_itself(with_notebook):
    config = with_notebook.properties("training", "AWS::SageMaker::NotebookInstanceLifecycleConfig")
    script = config["OnStart"][0]["Content"]["Fn::Base64"]
    assert "stop_when_idle.py 2700" in script
    assert len(script.encode()) * 4 / 3 <= 16384  # SageMaker's limit, in base64
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("stage_name", ["dev", "production"])
def test_it_may_start_what_the_command_line_starts(synthesise, stage_name):
    settings = replace(load("dev"), stage=stage_name, notebook=NotebookSettings())
    patterns = allowed(role_for(synthesise(settings), "training", "Notebook instance"))["sagemaker:CreateTrainingJob"]
    tuning_job = tuning_job_name(settings, datetime(2026, 1, 1, tzinfo=UTC))
    for kind in JOB_KINDS:
        job = f"{arn('sagemaker')}:{kind}/{tuning_job}"
        assert [pattern for pattern in patterns if job.startswith(pattern.removesuffix("*"))]
