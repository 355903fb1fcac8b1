"""S3 of the local AWS delivers access logs as AWS does: late, and to a bucket that seemed to be empty already."""

from __future__ import annotations

import json
from typing import Any

from local_aws_harness import LocalAws, policy, refused
from waiting import wait_until

ACCOUNT = "000000000000"
CONDITIONS = {"access_log_seconds": 0.5}


def delivery_policy(target: str, source: str = "*") -> dict[str, Any]:
    source_arn, account = {"aws:SourceArn": f"arn:aws:s3:::{source}"}, {"aws:SourceAccount": ACCOUNT}
    writing = {"Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{target}/logs/*"}
    service = {"Principal": {"Service": "logging.s3.amazonaws.com"}}
    return policy({**service, **writing, "Condition": {"ArnLike": source_arn, "StringEquals": account}})


def switch_on(aws: LocalAws, source: str, target: str, document: dict[str, Any] | None = None) -> Any:
    for bucket in (source, target):
        aws.s3.create_bucket(Bucket=bucket)
    aws.s3.put_bucket_policy(Bucket=target, Policy=json.dumps(document or delivery_policy(target)))
    enabled = {"TargetBucket": target, "TargetPrefix": "logs/"}
    aws.s3.put_bucket_logging(Bucket=source, BucketLoggingStatus={"LoggingEnabled": enabled})
    return aws.s3


def records(s3: Any, target: str) -> list[str]:
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=target, Prefix="logs/20").get("Contents", [])]
    bodies = [s3.get_object(Bucket=target, Key=key)["Body"].read().decode() for key in keys]
    return [line for body in bodies for line in body.splitlines()]


def delivered(s3: Any, target: str, *texts: str) -> list[str]:
    """The records, once one of them has all these texts."""
    wait_until(lambda: any(all(text in line for text in texts) for line in records(s3, target)))
    return records(s3, target)


def test_records_of_requests_arrive_late_and_even_after_the_bucket_is_gone(aws: LocalAws) -> None:
    s3 = switch_on(aws, "source-a", "target-a")
    s3.put_object(Bucket="source-a", Key="dogs/1.jpg", Body=b"1")
    assert records(s3, "target-a") == []
    refused(s3.get_object, "NoSuchKey", Bucket="source-a", Key="missing")
    s3.delete_object(Bucket="source-a", Key="dogs/1.jpg")
    s3.delete_bucket(Bucket="source-a")
    lines = delivered(s3, "target-a", "REST.DELETE.BUCKET - ")
    put = next(line for line in lines if "REST.PUT.OBJECT" in line)
    assert put.startswith(f"{ACCOUNT} source-a [")
    assert '"PUT /source-a/dogs/1.jpg HTTP/1.1" 200 -' in put
    assert any("REST.GET.OBJECT missing" in line and " 404 NoSuchKey " in line for line in lines)


def test_requests_after_logging_is_off_leave_no_record_but_earlier_ones_still_do(aws: LocalAws) -> None:
    s3 = switch_on(aws, "source-c", "target-c")
    s3.put_object(Bucket="source-c", Key="before", Body=b"1")
    s3.put_bucket_logging(Bucket="source-c", BucketLoggingStatus={})
    s3.put_object(Bucket="source-c", Key="after", Body=b"1")
    switch_on(aws, "source-c2", "target-c")  # its records come after all those of the first bucket
    s3.put_object(Bucket="source-c2", Key="last", Body=b"1")
    lines = delivered(s3, "target-c", "source-c2", "REST.PUT.OBJECT last ")
    assert any("REST.PUT.OBJECT before " in line for line in lines)
    assert not any("REST.PUT.OBJECT after " in line for line in lines)


def test_records_are_dropped_where_the_service_may_not_write(aws: LocalAws) -> None:
    s3 = switch_on(aws, "source-d", "target-d", delivery_policy("target-d", source="another"))
    switch_on(aws, "source-e", "target-e")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/aws/s3"}}
    s3.put_bucket_encryption(Bucket="target-e", ServerSideEncryptionConfiguration={"Rules": [rule]})
    switch_on(aws, "source-f", "target-f")
    for source in ("source-d", "source-e", "source-f"):
        s3.put_object(Bucket=source, Key="1", Body=b"1")
    delivered(s3, "target-f", "source-f")
    assert (records(s3, "target-d"), records(s3, "target-e")) == ([], [])


def test_a_target_that_cannot_be_is_refused(aws: LocalAws) -> None:
    s3 = switch_on(aws, "source-g", "target-g")
    far = aws.client("s3", region_name="eu-central-1")
    far.create_bucket(Bucket="far-target", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    by_date = {"TargetObjectKeyFormat": {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}}
    for target, more, code in (
        ("nowhere", {}, "InvalidTargetBucketForLogging"),
        ("far-target", {}, "CrossLocationLoggingProhibited"),
        ("target-g", by_date, "NotImplemented"),
    ):
        status = {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": "", **more}}
        refused(s3.put_bucket_logging, code, Bucket="source-g", BucketLoggingStatus=status)
