"""The function in the usual way: the SDK's client made when the module is loaded, and one call per event."""

import base64
import os

import boto3

client = boto3.client("sagemaker-runtime")


def handler(event: dict[str, str], context: object) -> dict[str, object]:
    answer = client.invoke_endpoint(
        EndpointName=os.environ["ENDPOINT_NAME"],
        ContentType="application/x-image",
        Body=base64.b64decode(event["body"]),
    )
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": answer["Body"].read().decode(),
    }
