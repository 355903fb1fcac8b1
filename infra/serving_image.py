"""What the serving image is made of, and the tag that stands for it.

Both sides compute the same tag: the template that looks for the image, and the command line that pushes it.
"""

import hashlib
from pathlib import Path

# What the Dockerfile reads, relative to the build's context.
DOCKERFILE = "serving/image/Dockerfile"
SOURCES = (DOCKERFILE, "core/artifact_digest.py", "serving/image/requirements.txt", "serving/image/serve")


def image_tag(context: Path, architecture: str) -> str:
    """Return the tag of an image from the folder of `SOURCES`: the same for the same files and instruction set.

    The architecture is ``arm64`` or ``x86_64``.
    """
    digests = (hashlib.sha256((context / file).read_bytes()).hexdigest() for file in SOURCES)
    lines = "".join(f"{digest}  {file}\n" for digest, file in zip(digests, SOURCES, strict=True))
    return f"{architecture}-{hashlib.sha256(lines.encode()).hexdigest()[:16]}"
