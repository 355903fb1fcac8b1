"""Destroying a stage: access logs that arrive meanwhile, and things of the stage that no stack knows."""

from __future__ import annotations

import pytest
from local_aws_harness import SAGEMAKER_TRUST, policy, refused
from waiting import wait_until

from cli.aws import Stage
from cli.errors import NotReadyError, WorkFailedError
from cli.operating import destroying

CONDITIONS = {"access_log_seconds": 1.0}
LOGS, DATA = "the-logs", "the-data"
SERVICE = {"Principal": {"Service": "logging.s3.amazonaws.com"}}
WRITING = policy({**SERVICE, "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{LOGS}/*"})
LOGGING = {"DestinationBucketName": {"Ref": "Logs"}, "LogFilePrefix": "logs/"}
VERSIONED = {"VersioningConfiguration": {"Status": "Enabled"}}
#: As far as it matters here, the storage stack.
STORAGE = {
    "Resources": {
        "Logs": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": LOGS}},
        "Policy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": {"Ref": "Logs"}, "PolicyDocument": WRITING},
        },
        "Data": {
            "Type": "AWS::S3::Bucket",
            "Properties": {"BucketName": DATA, "LoggingConfiguration": LOGGING, **VERSIONED},
        },
        "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": "kennel-local"}},
    },
    "Outputs": {"ModelPackageGroupName": {"Value": {"Fn::GetAtt": ["Group", "ModelPackageGroupName"]}}},
}


def test_late_logs_do_not_keep_a_stage_from_being_destroyed_where_it_is(aws, monkeypatch, capsys):
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    stage = Stage("local")
    assert aws.deploy(stage.stack_name("storage"), STORAGE)["StackStatus"] == "CREATE_COMPLETE"
    aws.s3.put_object(Bucket=DATA, Key="datasets/a", Body=b"a")
    with monkeypatch.context() as elsewhere:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            elsewhere.setenv(name, "eu-west-1")
        with pytest.raises(NotReadyError, match=r"nothing of the stage 'local' in .* region eu-west-1") as raised:
            destroying.destroy_stage(Stage("local"))
        assert "AWS_REGION and AWS_DEFAULT_REGION" in raised.value.hint

    monkeypatch.setattr(destroying, "_LATE_LOGS_PAUSE", 0.1)
    monkeypatch.setitem(destroying._ONE_HOUR, "Delay", 0.1)
    delete, waited = destroying._delete_stack, list[str]()

    def delete_after_delivery(stage: Stage, kind: str) -> int:
        if kind == "storage" and not waited:
            waited.append(kind)
            wait_until(lambda: aws.s3.list_objects_v2(Bucket=LOGS).get("Contents"))
        return delete(stage, kind)

    monkeypatch.setattr(destroying, "_delete_stack", delete_after_delivery)
    destroying.destroy_stage(stage)
    assert waited
    assert "Access logs have arrived meanwhile" in capsys.readouterr().out
    assert stage.find_stack("kennel-local-storage") is None
    assert not {bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]} & {LOGS, DATA}


def test_what_no_stack_knows_is_found_by_its_tags_and_what_is_gone_is_not(aws, monkeypatch, capsys):
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    tags, kms = [{"Key": "project", "Value": "kennel"}, {"Key": "stage", "Value": "local"}], aws.client("kms")
    aws.s3.create_bucket(Bucket="forgotten")
    aws.s3.put_bucket_tagging(Bucket="forgotten", Tagging={"TagSet": tags})
    tagged = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags]
    going, staying = (kms.create_key(Tags=tagged)["KeyMetadata"]["KeyId"] for _ in range(2))
    kms.schedule_key_deletion(KeyId=going)
    aws.logs.create_log_group(logGroupName="of-the-stage", tags={"project": "kennel", "stage": "local"})
    aws.logs.create_log_group(logGroupName="of-another", tags={"project": "kennel", "stage": "dev"})
    configuration = {"NotebookInstanceName": "forgotten", "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 5}
    role = aws.role("notebook", SAGEMAKER_TRUST)
    aws.sagemaker.create_notebook_instance(**configuration, RoleArn=role, Tags=tags)
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_dashboard(DashboardName="kennel-local", DashboardBody='{"widgets": []}')
    tagging = aws.client("resourcegroupstaggingapi")  # tags are the other services', with their own permissions
    refused(tagging.tag_resources, "does not do this", ResourceARNList=["arn:aws:s3:::forgotten"], Tags={"a": "b"})
    with pytest.raises(WorkFailedError, match=r"5 thing\(s\) of local are left that cost") as raised:
        destroying.destroy_stage(Stage("local"))
    printed = capsys.readouterr().out
    for line in (
        "bucket forgotten: 0.023 USD a month for each GB",
        f"key {staying}: 1 USD a month",
        "dashboard kennel-local: 3 USD a month",
        "log group of-the-stage: 0.03 USD a month for each GB",
        "notebook instance forgotten: 0.14 USD a month for each GB of its volume",
    ):
        assert line in printed
    assert going not in printed and "of-another" not in printed
    assert "bucket forgotten" in str(raised.value)

    aws.s3.delete_bucket(Bucket="forgotten")
    cloudwatch.delete_dashboards(DashboardNames=["kennel-local"])
    kms.schedule_key_deletion(KeyId=staying)
    aws.logs.delete_log_group(logGroupName="of-the-stage")
    aws.sagemaker.stop_notebook_instance(NotebookInstanceName="forgotten")
    aws.sagemaker.delete_notebook_instance(NotebookInstanceName="forgotten")
    with pytest.raises(NotReadyError, match="nothing of the stage"):
        destroying.destroy_stage(Stage("local"))
