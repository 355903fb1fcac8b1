"""Secrets in plain text, for the gate and for `kennel audit`: detect-secrets knows the formats of keys and tokens."""

import base64
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

from infra.gate.statements import PATTERNS


@cache
def _detectors() -> list[Any]:
    """Return detect-secrets' detectors of formats; those of names, addresses and randomness find too much."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class  # on first use: 0.2 s
    from detect_secrets.plugins.base import RegexBasedDetector

    found: dict[str, type[Any]] = get_mapping_from_secret_type_to_class()
    kinds = [kind for kind, its in found.items() if issubclass(its, RegexBasedDetector) and "Public IP" not in kind]
    return [found[kind]() for kind in kinds]


@lru_cache(maxsize=10_000)
def _formats(text: str) -> frozenset[str]:
    text = PATTERNS["reference"].sub("$", text)
    found = {each.secret_type for each in _detectors() if any(each.analyze_string(text))}
    return frozenset(found | ({"Token"} if PATTERNS["secret"].search(text) else set()))


def secrets(name: str, text: str, *, assigns: bool = False) -> frozenset[str]:
    """Return the kinds of secrets that a text is or holds, by its format or by its name.

    A script, which may be in Base64, assigns names, too.

    detect-secrets' own scan is not asked: a comment in the text could switch it off.
    """
    if assigns:
        with suppress(ValueError):
            text += f"\n{base64.b64decode(text, validate=True).decode()}"
    named = PATTERNS["secret_name"].search(name) and not PATTERNS["harmless"].match(text)
    if named or (assigns and PATTERNS["assignment"].search(text)):
        return _formats(text) | {"Secret Keyword"}
    return _formats(text)
