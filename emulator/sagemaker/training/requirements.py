"""What a training job's ``requirements.txt`` asks for, compared with what is installed."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement


def unmet_requirements(file: str) -> Iterator[str]:
    """Say of each requirement that the installed distributions do not meet why not; options of pip are skipped."""
    checked = "--hash=" in file  # then pip asks for the hash of everything that it installs
    for line in file.replace("\\\n", " ").splitlines():
        text, *hashes = re.split(r"\s+--hash=", re.sub(r"(^|\s)#.*", "", line).strip())
        if not text or text.startswith("-"):
            continue
        if checked and not hashes:
            yield f"{text} (has no hash, and others have)"
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            yield f"{text} (unreadable: {str(error).splitlines()[0]})"
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{requirement} (not installed)"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement} (installed: {version})"
