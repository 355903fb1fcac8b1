"""A function in a network of its own, whose alias scales; with the constructs' defaults."""

from aws_cdk import App, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_s3 as s3

CODE = """
import os, boto3

def handler(event, context):
    boto3.client("s3").put_object(Bucket=os.environ["BUCKET"], Key="seen", Body=event["name"])
    return {"seen": event["name"]}
"""

app = App()
stack = Stack(app, "example")
bucket = s3.Bucket(stack, "Bucket", removal_policy=RemovalPolicy.DESTROY, auto_delete_objects=True)
function = functions.Function(
    stack,
    "Function",
    function_name="example",
    runtime=functions.Runtime.PYTHON_3_13,
    handler="index.handler",
    code=functions.Code.from_inline(CODE),
    environment={"BUCKET": bucket.bucket_name},
    vpc=ec2.Vpc(stack, "Vpc"),
)
bucket.grant_write(function)
alias = function.add_alias("live", provisioned_concurrent_executions=1)
alias.add_auto_scaling(min_capacity=1, max_capacity=3).scale_on_utilization(utilization_target=0.7)
app.synth()
