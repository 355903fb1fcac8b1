"""What a load test calls: the function URL of a stage, or its endpoint directly, with real images, signed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.aws import Stage
from cli.errors import NotReadyError, aws_errors
from cli.load.generator import Call, Check
from cli.serving.answers import parse_answer
from cli.serving.function_client import MAX_IMAGE_BYTES, signed_headers
from model.training.data.listing import IMAGE_SUFFIXES

_MOST_IMAGES = 100  # all of them are kept in memory


@dataclass(frozen=True)
class Target:
    """A stage under load."""

    stage: Stage
    images: list[bytes]
    url: str
    service: str  # in whose name requests are signed

    @classmethod
    def of(cls, stage: Stage, folder: Path, *, direct: bool) -> Target:
        """Find the address and read the images; a NotReadyError says what is missing."""
        images = _read_images(folder)
        if not direct:
            return cls(stage, images, stage.output("inference", "FunctionUrl"), "lambda")
        runtime = stage.client("sagemaker-runtime").meta.endpoint_url
        name = stage.output("inference", "EndpointName")
        return cls(stage, images, f"{runtime}/endpoints/{name}/invocations", "sagemaker")

    def calls(self) -> list[Call]:
        """Return a signed request for each image; AWS accepts them for five minutes."""
        return [self._sign(image) for image in self.images]

    def endless_calls(self) -> Iterator[Call]:
        """Yield a request for one image after the other, each signed when it is due."""
        return map(self._sign, itertools.cycle(self.images))

    def _sign(self, image: bytes) -> Call:
        headers = signed_headers(self.stage, self.url, image, "application/x-image", service=self.service)
        return Call(self.url, headers, image)

    def instances(self) -> int | None:
        """Return how many instances are in service; None of a serverless endpoint."""
        with aws_errors():
            name = self.stage.output("inference", "EndpointName")
            endpoint = self.stage.client("sagemaker").describe_endpoint(EndpointName=name)
        counts = [variant.get("CurrentInstanceCount") for variant in endpoint["ProductionVariants"]]
        return None if None in counts else sum(counts)


def check_labels(expected: Mapping[tuple[str, bytes], str] | None = None) -> Check:
    """Accept a 200 with the label that the model which answers gives to this very image; without any, with a label."""

    def check(call: Call, status: int, body: bytes) -> str | None:
        if status != 200:
            return f"HTTP {status}"
        try:
            answer = parse_answer(body)
            label = answer["predictions"][0]["label"]
        except (ValueError, KeyError):
            return "200 without a label"
        right = expected is None or expected.get((answer["model"]["version"], call.body)) == label
        return None if right else "200 with a wrong label"

    return check


check = check_labels()


def _read_images(folder: Path) -> list[bytes]:
    try:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        every = max(1, len(paths) // _MOST_IMAGES)  # of all classes
        images = [path.read_bytes() for path in paths[::every][:_MOST_IMAGES]]
    except OSError as error:
        raise NotReadyError(f"An image in {folder} cannot be read: {error}") from error
    fitting = [image for image in images if 0 < len(image) <= MAX_IMAGE_BYTES]
    if not fitting:
        hint = "kennel data sample draws some; --images FOLDER names another folder"
        raise NotReadyError(f"There is no image in {folder} that a request can hold.", hint)
    return fitting
