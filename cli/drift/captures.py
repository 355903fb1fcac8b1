"""What an endpoint captured, line by line: the figures of a fair sample of the images, in bounded memory."""

from __future__ import annotations

import base64
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.aws import Stage
from cli.errors import aws_errors
from cli.serving.answers import parse_answer
from infra.bucket_layout import CAPTURED
from model.core.decoding import ImageError
from model.serving.request import RequestError, parse
from model.training.artifact.reference import look

#: More images make no test better, but take minutes to decode: of more, each has the same chance to be looked at.
SAMPLE = 10_000
OTHER_MODEL = "of another model"
_MAX_LINE = 48 * 2**20  # bytes: the largest image in base64, and its answer
_LATE = timedelta(hours=1)  # an object is named after its first invocation; the last one may be of the next hour


class Captures:
    """A fair sample of what a stage's endpoint captured since a moment, of the model of a version."""

    def __init__(self, stage: Stage, since: datetime, version: str, report: Callable[[int], None]) -> None:
        self.rows: list[dict[str, Any]] = []  # images' figures, and "time"
        self.images, self.skipped, self.examples = 0, Counter[str](), dict[str, str]()  # by reason
        self._chance = random.Random(0)  # noqa: S311 - the same sample each time
        s3, bucket, settings = stage.client("s3"), stage.data_bucket, stage.settings
        folder = f"{CAPTURED}/{settings.endpoint_name}/{settings.serving.variant_name}/"
        where = {"Prefix": folder, "StartAfter": f"{folder}{since.astimezone(UTC) - _LATE:%Y/%m/%d/%H/}"}
        for listed in stage.listed("s3", "list_objects_v2", "Contents", Bucket=bucket, **where):
            with aws_errors():
                body = io.BufferedReader(s3.get_object(Bucket=bucket, Key=listed["Key"])["Body"])
                number = 0
                while line := body.readline(_MAX_LINE):  # the parts of a longer one are lines that are no captures
                    number += 1
                    if reason := self._take(line, since, version):
                        self.skipped[reason] += 1
                        self.examples.setdefault(reason, f"s3://{bucket}/{listed['Key']} line {number}")
                    report(self.images)

    def _take(self, line: bytes, since: datetime, version: str) -> str | None:
        """Add a line to the sample or return why not; in place of another one, once that is full (Vitter 1985, R)."""
        try:
            record = json.loads(line)
            moment = datetime.fromisoformat(record["eventMetadata"]["inferenceTime"])
            if moment < since:
                return None
            sent, answered = (record["captureData"][f"endpoint{side}"] for side in ("Input", "Output"))
            answer = parse_answer(_content(answered))
            image, _ = parse(_content(sent), sent.get("observedContentType", ""))
            if answer["model"]["version"] != version:
                return OTHER_MODEL
            place = self._chance.randrange(self.images + 1) if self.images >= SAMPLE else self.images
            if place < SAMPLE:
                self.rows[place : place + 1] = [{"time": moment, **look(image, answer)}]
        except ImageError:
            return "with an image that cannot be decoded"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RequestError):
            return "no whole capture of an image and its answer"
        self.images += 1
        return None


def _content(side: dict[str, str]) -> bytes:
    return base64.b64decode(side["data"], validate=True) if side["encoding"] == "BASE64" else side["data"].encode()
