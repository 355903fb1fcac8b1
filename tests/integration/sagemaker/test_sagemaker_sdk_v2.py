"""Version 2 of SageMaker's SDK: what 2.257.7 sends for `PyTorch.fit` and `HyperparameterTuner.fit`, recorded.

With the role of its notebooks, that has AWS's AmazonSageMakerFullAccess and nothing else.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import channel, tar_gz
from local_aws_harness import SAGEMAKER_TRUST, refused
from sagemaker_local import ENDED, LocalSageMaker
from waiting import wait_until

SENT = json.loads(Path(__file__).with_name("sdk_v2.json").read_text())
NAME = SENT["CreateTrainingJob"]["TrainingJobName"]
BUCKET = "sagemaker-us-east-1-000000000000"
PROGRAM = b"""import os
for loss in (0.484783, 0.353030): print(f"train loss={loss};")
open(os.environ["SM_MODEL_DIR"] + "/model", "w").close()"""


@pytest.fixture(scope="module", autouse=True)
def prepared(aws: LocalSageMaker) -> None:
    aws.role("sm", SAGEMAKER_TRUST)
    aws.iam.attach_role_policy(RoleName="sm", PolicyArn="arn:aws:iam::aws:policy/AmazonSageMakerFullAccess")
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="data/d.csv", Body=b"1,2")
    aws.s3.put_object(Bucket=BUCKET, Key=f"{NAME}/source/sourcedir.tar.gz", Body=tar_gz({"train.py": PROGRAM}))


def test_a_training_job_is_described_and_measured_as_the_sdk_reads_it(aws: LocalSageMaker) -> None:
    nothing = [channel("training", f"s3://{BUCKET}/nothing")]
    empty = {**SENT["CreateTrainingJob"], "InputDataConfig": nothing}
    refused(aws.sagemaker.create_training_job, f'No S3 objects found under S3 URL "s3://{BUCKET}/nothing"', **empty)
    aws.sagemaker.create_training_job(**SENT["CreateTrainingJob"])
    described = aws.ended(NAME)
    assert (described["TrainingJobStatus"], described["OutputDataConfig"]["KmsKeyId"]) == ("Completed", "")
    model = aws.s3.head_object(Bucket=BUCKET, Key=f"{NAME}/output/model.tar.gz")
    assert (model["ServerSideEncryption"], model["SSEKMSKeyId"][-12:]) == ("aws:kms", "alias/aws/s3")
    asked = {"MetricName": "train:loss", "Dimensions": [{"Name": "TrainingJobName", "Value": NAME}]}
    # As `TrainingJobAnalytics` asks: a minute after the job's end, for EndTime is exclusive.
    times = {
        "StartTime": described["TrainingStartTime"],
        "EndTime": described["TrainingEndTime"] + timedelta(minutes=1),
    }

    def points() -> Any:
        shown = {"Namespace": "/aws/sagemaker/TrainingJobs", "Period": 3600, "Statistics": ["Average", "SampleCount"]}
        return aws.client("cloudwatch").get_metric_statistics(**shown, **asked, **times)["Datapoints"]

    (point,) = wait_until(points)
    assert (point["Average"], point["SampleCount"]) == (pytest.approx(0.4189065), 2)


def test_a_tuning_job_runs_on_its_own_choice_of_instances(aws: LocalSageMaker) -> None:
    request = SENT["CreateHyperParameterTuningJob"]
    definition, name = request["TrainingJobDefinition"], request["HyperParameterTuningJobName"]
    create, describe = (getattr(aws.sagemaker, f"{verb}_hyper_parameter_tuning_job") for verb in ("create", "describe"))
    both = {**definition, "ResourceConfig": SENT["CreateTrainingJob"]["ResourceConfig"]}
    refused(create, "and not both", **{**request, "TrainingJobDefinition": both})
    several = [{"InstanceType": it, "InstanceCount": 1, "VolumeSizeInGB": 5} for it in ("ml.m4.xlarge", "ml.m5.large")]
    for resources, expected in (
        (definition["HyperParameterTuningResourceConfig"], "ml.m5.large"),
        ({"InstanceConfigs": several}, "ml.m4.xlarge"),
    ):
        own = {"HyperParameterTuningJobName": name[: len(expected) + 10]}
        training = {**definition, "HyperParameterTuningResourceConfig": resources}
        create(**{**request, **own, "TrainingJobDefinition": training})
        wait_until(lambda own=own: describe(**own)["HyperParameterTuningJobStatus"] in ENDED)
        described = describe(**own)["TrainingJobDefinition"]
        assert described["StaticHyperParameters"]["_tuning_objective_metric"] == "train:loss"
        assert (described["OutputDataConfig"]["KmsKeyId"], "ResourceConfig" in described) == ("", len(resources) > 1)
        best = aws.job(describe(**own)["BestTrainingJob"]["TrainingJobName"])
        assert best["ResourceConfig"]["InstanceType"] == expected
