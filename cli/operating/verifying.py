"""Check that the deployed model answers; CloudFormation also says "complete" of an endpoint that has rolled back."""

from __future__ import annotations

import io
import time

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.errors import AwsError, WorkFailedError, aws_errors
from cli.serving.function_client import Answer, FunctionClient

#: What goes by itself: permissions and a new alias settle, the function's name becomes known, an instance warms up.
_SETTLING = (403, 404, 429, 500, 502, 503, 504)
_SETTLING_SECONDS = 60.0
_PAUSE_SECONDS = 3.0


def verify_inference(stage: Stage, version: str) -> None:
    """Compare the endpoint's configuration, and call the function once; the model of this version must answer."""
    endpoint = stage.output("inference", "EndpointName")
    problem = other_configuration(stage, endpoint) or _wrong_answer(stage, version)
    if problem:
        hint = f"Read the containers' log: log group /aws/sagemaker/Endpoints/{endpoint}"
        raise WorkFailedError(f"The stacks are deployed, but {problem}", hint)


def endpoint_is_deleted(stage: Stage) -> bool:
    """Say whether the inference stack names an endpoint that is not there."""
    if (name := (stage.find_outputs("inference") or {}).get("EndpointName")) is None:
        return False
    return name not in [each["EndpointName"] for each in stage.listed("sagemaker", "list_endpoints", "Endpoints")]


def other_configuration(stage: Stage, name: str) -> str | None:
    """A failed endpoint update can be rolled back silently and still look InService: compare, do not trust."""
    with aws_errors():
        (wanted,) = stage.resources("inference", "AWS::SageMaker::EndpointConfig")
        endpoint = stage.client("sagemaker").describe_endpoint(EndpointName=name)
    deployed = wanted["PhysicalResourceId"].rsplit("/", 1)[-1]
    found, reason = endpoint["EndpointConfigName"], endpoint.get("FailureReason", "SageMaker gives no reason")
    if found.lower() == deployed.lower():
        return None
    return f"the endpoint {name} still serves {found} in place of {deployed}: {reason}"


def _wrong_answer(stage: Stage, version: str) -> str | None:
    from PIL import Image

    file = io.BytesIO()  # any answer to it will do
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    console.print("Calling the function once")
    with progress_bar("Waiting for its answer"):
        answer = _settled_answer(FunctionClient(stage), file.getvalue())
    if answer.status == 403:
        console.print("not checked: these credentials may not call the function URL.")
        return None
    if answer.error:
        return f"the function does not answer as it should: {answer.error}"
    if (served := answer.body["model"]["version"]) != version:
        return f"the model {served} answers in place of {version}"
    console.print(f"The function answers with the model {version[:19]}….")
    return None


def _settled_answer(function: FunctionClient, image: bytes) -> Answer:
    """Return the function's answer, once it is no longer one that a new deployment may give for a while."""
    deadline = time.monotonic() + _SETTLING_SECONDS
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
