"""Which of the forms of an answer a caller gets, from the request's `Accept` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re

JSON = "application/json"
JSON_LINES = "application/jsonlines"
NPY = "application/x-npy"
#: What the service can answer with, its favourite first.
OFFERED = (JSON, JSON_LINES, NPY)

# Java's own client sends `*; q=.2`, which the RFC would write `*/*;q=0.2`.
_WEIGHT = re.compile(r"0?\.\d{1,9}|0\.?|1(\.0{0,9})?")


def negotiate(accept: str) -> str | None:
    """Return the media type that a caller prefers of those in `OFFERED`, None if none is acceptable.

    No header accepts everything; of several that weigh the same, the first of `OFFERED` is taken.
    """
    if accept in ("", "*/*", JSON):  # what nearly all callers send
        return JSON
    # By the range, its weight. A type's weight is that of the most specific range that it matches.
    weights = dict(filter(None, map(_weighted_range, accept.lower().split(","))))
    weighted = [
        (next((weights[range_] for range_ in (offered, "application/*", "*/*") if range_ in weights), 0.0), offered)
        for offered in OFFERED
    ]
    weight, best = max(weighted, key=lambda pair: pair[0])
    return best if weight > 0 else None


def _weighted_range(text: str) -> tuple[str, float] | None:
    media_range, *parameters = (part.strip() for part in text.split(";"))
    weight: float | None = 1.0
    for parameter in parameters:
        name, _, value = (part.strip() for part in parameter.partition("="))
        if name == "q":
            weight = float(value) if _WEIGHT.fullmatch(value) else None
    return None if weight is None else ("*/*" if media_range == "*" else media_range, weight)
