"""Check that the deployed model answers; CloudFormation also says "complete" of an endpoint that has rolled back."""

from __future__ import annotations

import io
import time
from typing import Any

from cli.aws import Stage
from cli.console import console
from cli.errors import AwsError, WorkFailedError, aws_errors
from cli.serving.function_client import Answer, FunctionClient

#: What goes by itself: permissions and a new alias settle, the function's name becomes known, an instance warms up.
_SETTLING = (403, 404, 429, 500, 502, 503, 504)
_SETTLING_SECONDS = 60.0
_PAUSE_SECONDS = 3.0
_LOG_HINT = "Read the containers' log: log group /aws/sagemaker/Endpoints/{}"


def verify_inference(stage: Stage, version: str) -> None:
    """Ask the endpoint which configuration it has, and call it once.

    Parameters
    ----------
    version : str
        Of the model that must answer (see `model.core.artifact.ModelCard`).

    Raises
    ------
    WorkFailedError
        When it serves another configuration than the stack's, does not answer, or another model answers.
    """
    _check_endpoint_follows_stack(stage)
    _call_once(stage, version)


def _check_endpoint_follows_stack(stage: Stage) -> None:
    """A failed endpoint update can be rolled back silently and still look InService: compare, do not trust."""
    with aws_errors():
        resources = stage.client("cloudformation").describe_stack_resources(StackName=stage.stack_name("inference"))
        wanted = next(
            resource["PhysicalResourceId"].rsplit("/", 1)[-1]
            for resource in resources["StackResources"]
            if resource["ResourceType"] == "AWS::SageMaker::EndpointConfig"
        )
        name = stage.output("inference", "EndpointName")
        endpoint = stage.client("sagemaker").describe_endpoint(EndpointName=name)
    if endpoint["EndpointConfigName"].lower() != wanted.lower():
        raise WorkFailedError(
            f"The stack is deployed, but the endpoint {name} still serves {endpoint['EndpointConfigName']} in place of "
            f"{wanted}: {endpoint.get('FailureReason', 'SageMaker gives no reason')}",
            _LOG_HINT.format(name),
        )


def _call_once(stage: Stage, version: str) -> None:
    """Send an image through the function URL, as callers do; where the deployer may not, to the endpoint."""
    way, endpoint = "function", stage.output("inference", "EndpointName")
    console.print("Calling the function once")
    answer = _settled_answer(FunctionClient(stage))
    if answer.status == 403:
        console.print("These credentials may not call the function URL: the endpoint itself is called.")
        way, answer = "endpoint", _ask_endpoint(stage, endpoint)
    if problem := answer.error or _wrong(answer.body, version):
        raise WorkFailedError(
            f"The stacks are deployed, but the {way} does not answer as it should: {problem}",
            _LOG_HINT.format(endpoint),
        )
    console.print(f"The {way} answers with the model {version[:19]}….")


def _settled_answer(function: FunctionClient) -> Answer:
    """The function's answer, once it is no longer one that a new deployment may give for a while."""
    image, deadline = _test_image(), time.monotonic() + _SETTLING_SECONDS
    while True:
        in_time = time.monotonic() < deadline
        try:
            answer = function.classify_bytes(image, top_k=1)
            if answer.status not in _SETTLING or not in_time:
                return answer
        except AwsError:  # its name is not known yet
            if not in_time:
                raise
        time.sleep(_PAUSE_SECONDS)


def _ask_endpoint(stage: Stage, endpoint: str) -> Answer:
    with aws_errors():
        response = stage.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint, Body=_test_image(), ContentType="image/png"
        )
    return Answer.parse(200, response["Body"].read())


def _test_image() -> bytes:
    """Draw a small image; any answer to it will do."""
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _wrong(body: dict[str, Any], version: str) -> str | None:
    """Say what is wrong with an answer, or None."""
    served = body["model"]["version"]
    return None if served == version else f"the model {served} answers in place of {version}"
