"""A stage whose AWS is a bucket in a dictionary and a SageMaker that has transform jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fake_account import refusal
from fake_s3 import FakeS3
from fake_stage import FakeStage


def answer_of(label: str) -> bytes:
    predictions = [{"label": label, "probability": 0.75}, {"label": "Beagle", "probability": 0.25}]
    return json.dumps({"predictions": predictions, "model": {"name": "dogs", "version": "sha256:1"}}).encode()


class FakeSageMaker:
    """One endpoint, and transform jobs that end as soon as somebody looks after them."""

    def __init__(self, s3: FakeS3) -> None:
        self.s3 = s3
        self.model = "model-1"
        self.status = "Completed"
        self.requests: list[dict[str, Any]] = []
        self.running = False
        self.answer: Callable[[str], bytes | None] = lambda name: answer_of("Akita")

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        return {"EndpointConfigName": f"config of {EndpointName}"}

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        assert EndpointConfigName == "config of EndpointName"
        return {"ProductionVariants": [{"ModelName": self.model}]}

    def create_transform_job(self, **request: Any) -> None:
        self.requests.append(request)

    def describe_transform_job(self, *, TransformJobName: str) -> dict[str, Any]:
        request = next((r for r in self.requests if r["TransformJobName"] == TransformJobName), None)
        if request is None:
            raise refusal("ValidationException")
        if self.running:
            raise KeyboardInterrupt
        manifest = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://bucket/")
        head, *names = json.loads(self.s3.objects[manifest])
        assert head == {"prefix": "s3://bucket/batch/input/dogs/"}
        output = request["TransformOutput"]["S3OutputPath"].removeprefix("s3://bucket/").rstrip("/")
        for name in names:
            if (answer := self.answer(name)) is not None:
                self.s3.objects[f"{output}/{name}.out"] = answer
        reason = {"FailureReason": "AlgorithmError: out of luck"} if self.status == "Failed" else {}
        return {"TransformJobStatus": self.status, **reason}


def stage_with(*images: str) -> FakeStage:
    """A deployed stage with images, whose bytes are their names, below ``batch/input/dogs/``."""
    s3 = FakeS3()
    for name in images:
        s3.objects[f"batch/input/dogs/{name}"] = name.encode()
    return FakeStage("local", s3=s3, sagemaker=FakeSageMaker(s3))
