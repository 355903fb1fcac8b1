"""The classifier function on the local AWS while there is too much, or nothing to answer: come again, says each."""

from __future__ import annotations

from local_aws_harness import LAMBDA_TRUST, policy, zipped
from sagemaker_local import LocalSageMaker
from templates import PROJECT
from waiting import wait_until


def test_503_without_capacity_and_429_when_throttled(aws: LocalSageMaker, role: str) -> None:
    code = zipped({str(path.relative_to(PROJECT)): path.read_bytes() for path in PROJECT.glob("lambda_fn/**/*.py")})
    invoke = {"Action": "sagemaker:InvokeEndpoint", "Resource": "*"}
    aws.lambda_.create_function(
        FunctionName="classifier",
        Runtime="python3.14",
        Role=aws.role("classifier", LAMBDA_TRUST, policy(invoke)),
        Handler="lambda_fn.handler.handler",
        Timeout=30,
        Code={"ZipFile": code},
        Environment={"Variables": {"ENDPOINT_NAME": "dogs"}},
    )
    url = aws.lambda_.create_function_url_config(FunctionName="classifier", AuthType="AWS_IAM")["FunctionUrl"]

    absent = aws.call(url, b"image")
    assert (absent.status, absent.json()["error"]["code"], absent.headers["retry-after"]) == (503, "not_ready", "10")

    aws.endpoint(aws.config(aws.model(aws.artifact("1"), role)), "dogs")
    killed = aws.call(url, b"die")  # the instance's server ends in the middle of its answer
    assert (killed.status, killed.headers["retry-after"]) == (503, "10")
    wait_until(lambda: aws.call(url, b"who").status == 424)  # it is back, with an answer that is no classification

    aws.lambda_.put_function_concurrency(FunctionName="classifier", ReservedConcurrentExecutions=0)
    throttled = aws.call(url, b"image")
    assert throttled.status == 429
    assert throttled.json()["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert "retry-after" not in throttled.headers  # it is Lambda's answer, not ours
