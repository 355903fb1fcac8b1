"""The notebook instance, which stages have only when their settings say so: one property a test."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from templates import PROJECT, SynthesisedStage, allowed, condition, role_for, text

from infra.constructs.notebook_instance import MAX_SCRIPT_CHARACTERS, render_start_script
from infra.job_names import tuning_job_name
from infra.settings import NotebookSettings, load

ACCOUNT = "<AWS::Region>:<AWS::AccountId>"


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


@pytest.fixture(scope="module")
def role(stage: SynthesisedStage) -> dict:
    return role_for(stage, "training", "Notebook instance")


def test_stages_have_none_unless_they_say_so(stages):
    for stage in stages.values():
        types = {resource["Type"] for resource in stage.template("training")["Resources"].values()}
        assert not [name for name in types if "Notebook" in name]


def test_its_user_is_not_root(notebook):
    assert notebook["RootAccess"] == "Disabled"


def test_its_volume_is_encrypted_with_the_stages_key(notebook):
    assert "DataKey" in text(notebook["KmsKeyId"])


def test_metadata_need_a_token(notebook):
    assert notebook["InstanceMetadataServiceConfiguration"] == {"MinimumInstanceMetadataServiceVersion": "2"}


def test_it_is_small_and_of_the_current_platform(notebook):
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
    assert "NotebookInstanceLifecycleConfigName" in text(notebook["LifecycleConfigName"])


def test_the_lifecycle_script_is_valid_and_within_sagemakers_limit():
    script = render_start_script(60)
    assert len(script.encode()) * 4 / 3 <= MAX_SCRIPT_CHARACTERS
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_it_stops_no_other_notebook(role):
    assert allowed(role)["sagemaker:StopNotebookInstance"] == {
        f"arn:<AWS::Partition>:sagemaker:{ACCOUNT}:notebook-instance/kennel-dev-notebook"
    }


def test_it_passes_the_training_role_to_sagemaker_and_no_other_role_to_anything(role):
    (arn,) = allowed(role)["iam:PassRole"]
    assert arn.startswith("<Role")
    assert condition(role, "iam:PassRole") == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert {action for action in allowed(role) if action.startswith("iam:")} == {"iam:PassRole"}


def test_it_trains_and_tunes_in_its_own_stage_only(role):
    own = {action: arns for action, arns in allowed(role).items() if action.startswith("sagemaker:")}
    del own["sagemaker:StopNotebookInstance"]  # and what is for listings: tests of their own
    del own["sagemaker:ListTrainingJobs"], own["sagemaker:ListHyperParameterTuningJobs"]
    actions = [f"{verb}{kind}" for verb in ("Create", "Describe", "Stop")
               for kind in ("TrainingJob", "HyperParameterTuningJob")]  # fmt: skip
    actions += ["AddTags", "ListTrainingJobsForHyperParameterTuningJob"]
    assert own == {
        f"sagemaker:{action}": {
            f"arn:<AWS::Partition>:sagemaker:{ACCOUNT}:{kind}/kennel-dev-*"
            for kind in ("training-job", "hyper-parameter-tuning-job")
        }
        for action in actions
    }


@pytest.mark.parametrize("stage_name", ["dev", "production"])
def test_it_may_start_what_the_command_line_starts(synthesise, stage_name):
    settings = replace(load("dev"), stage=stage_name, notebook=NotebookSettings())
    patterns = allowed(role_for(synthesise(settings), "training", "Notebook instance"))["sagemaker:CreateTrainingJob"]
    tuning_job = tuning_job_name(settings, datetime(2026, 1, 1, tzinfo=UTC))
    for kind in ("training-job", "hyper-parameter-tuning-job"):
        arn = f"arn:<AWS::Partition>:sagemaker:{ACCOUNT}:{kind}/{tuning_job}"
        assert [pattern for pattern in patterns if arn.startswith(pattern.removesuffix("*"))]


def test_it_deletes_nothing_and_writes_only_data_sets_and_code(role):
    table = allowed(role)
    assert not [action for action in table if "Delete" in action or "*" in action]
    assert {arn.rsplit(">", 1)[-1] for arn in table["s3:PutObject"]} == {"/datasets/*", "/code/*"}


def test_it_reads_versions_of_what_trainings_leave_only(role):
    assert {arn.rsplit(">", 1)[-1] for arn in allowed(role)["s3:GetObjectVersion"]} == {"/training/*"}
    assert condition(role, "s3:ListBucketVersions") == {
        "StringEquals": {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}},
        "StringLike": {"s3:prefix": ["training/*"]},
    }


def test_it_passes_the_key_on_to_its_volume_only_and_opens_objects_only_through_s3(role):
    assert condition(role, "kms:CreateGrant") == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert text(condition(role, action)["StringEquals"]["kms:ViaService"]).startswith("s3.")
    actions = {action for action in allowed(role) if action.startswith("kms:")}
    assert actions == {"kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant", "kms:DescribeKey"}


def test_it_calls_the_function_of_its_stage_through_the_url_only(role):
    table = allowed(role)
    assert {action for action in table if action.startswith("lambda:")} == {
        "lambda:InvokeFunctionUrl",
        "lambda:InvokeFunction",
    }
    for action in ("lambda:InvokeFunctionUrl", "lambda:InvokeFunction"):
        assert table[action] == {f"arn:<AWS::Partition>:lambda:{ACCOUNT}:function:kennel-dev-inference-*"}
    assert condition(role, "lambda:InvokeFunction") == {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}


def test_it_reads_the_logs_of_trainings_and_writes_its_own(role):
    logs = {action: arns for action, arns in allowed(role).items() if action.startswith("logs:")}

    def group(name: str) -> set[str]:
        arn = f"arn:<AWS::Partition>:logs:{ACCOUNT}:log-group:/aws/sagemaker/{name}"
        return {arn, f"{arn}:log-stream:*"}

    assert logs == {
        **dict.fromkeys(("logs:DescribeLogStreams", "logs:GetLogEvents"), group("TrainingJobs")),
        **dict.fromkeys(
            ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"), group("NotebookInstances")
        ),
    }


def test_it_cannot_deploy(role):
    actions = {action for action in allowed(role) if action.startswith(("cloudformation:", "sts:"))}
    assert actions == {"cloudformation:DescribeStacks"}


def test_any_resource_is_for_listings_only(role):
    table = allowed(role)
    assert {action for action, arns in table.items() if "*" in arns} == {
        "sagemaker:ListTrainingJobs",
        "sagemaker:ListHyperParameterTuningJobs",
    }


def test_sagemaker_assumes_its_role_for_this_account_only(role):
    (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_every_reason_of_an_exception_is_documented(stage):
    documented = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    reasons = {violation["reason"] for plugin in stage.report() for violation in plugin["suppressedViolations"]}
    assert not [reason for reason in reasons if reason not in documented]


def test_every_exception_in_a_network_is_needed(in_network):
    assert in_network.report()  # the synthesis has gone through: no finding is open, no exception unused
