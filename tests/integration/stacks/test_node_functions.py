"""Functions of Node, as the CDK's own custom resources are: run with what is installed, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_aws_harness import custom_resource, zipped
from sagemaker_local import BUCKET, local_aws

#: A function of Node that answers its custom resource by what a package of the SDK exports.
NODE = """
const { answer } = require("@aws-sdk/client-answer");
exports.handler = async (event) => {
  const same = { StackId: event.StackId, RequestId: event.RequestId, LogicalResourceId: event.LogicalResourceId };
  const body = JSON.stringify({ Status: "SUCCESS", PhysicalResourceId: "p", Data: { Answer: answer }, ...same });
  await fetch(event.ResponseURL, { method: "PUT", body });
};
"""


def test_a_function_of_node_runs_with_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "node_modules" / "@aws-sdk" / "client-answer"
    package.mkdir(parents=True)
    (package / "index.js").write_text("exports.answer = 'installed';")
    template = custom_resource({"S3Bucket": BUCKET, "S3Key": "node.zip"}, "nodejs24.x")
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"Tags": [{"Key": "empty", "Value": "me"}]}}
    template["Resources"]["Bucket"], template["Outputs"]["Bucket"] = bucket, {"Value": {"Ref": "Bucket"}}
    monkeypatch.delenv("NODE_PATH", raising=False)
    with local_aws(tmp_path / "state") as aws:
        aws.s3.put_object(Bucket=BUCKET, Key="node.zip", Body=zipped({"index.js": NODE}))
        assert "needs @aws-sdk/client-answer" in aws.deploy("without", template)["Reasons"]
        monkeypatch.setenv("NODE_PATH", str(tmp_path / "node_modules"))
        aws.down()
        aws.up()
        stack = aws.deploy("with", template)
        answer, name = (output["OutputValue"] for output in stack["Outputs"])
        assert answer == "installed", stack["Reasons"]
        # By its tag the CDK's function knows which bucket it may empty.
        assert {"Key": "empty", "Value": "me"} in aws.s3.get_bucket_tagging(Bucket=name)["TagSet"]
        deployment = {"Resources": {"D": {"Type": "Custom::CDKBucketDeployment", "Properties": {}}}}
        with pytest.raises(
            aws.cloudformation.exceptions.ClientError, match=r"has no BucketDeployment \(D\): .*s3 sync"
        ):
            aws.deploy("deployment", deployment)
