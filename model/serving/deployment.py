"""The Ray Serve application of AWS's ready-made image: copies of the model behind Ray's proxy, one per vCPU by default.

Ray pickles the class by value and unpickles it in processes that know nothing of this file's folder. So the class
refers to nothing but the standard library until it runs, and is told where the serving program is.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ray import serve

CODE = str(Path(__file__).resolve().parent / "code")
sys.path.insert(0, CODE)

from model.serving_settings import ServingSettings  # noqa: E402 - it is in the folder named just above

SETTINGS = ServingSettings.from_environment(os.environ)


# A copy computes one answer at a time; the others wait in Ray's router, which gives each to a copy that is free.
@serve.deployment(
    num_replicas=SETTINGS.workers, ray_actor_options={"num_cpus": SETTINGS.threads}, max_ongoing_requests=1
)
class Classifier:
    """Hands requests to the artifact's own program."""

    def __init__(self, code: str) -> None:
        sys.path.insert(0, code)
        from model.deployment import Replica

        self._replica = Replica.from_environment()

    async def __call__(self, request: Any) -> Any:
        """Answer a Starlette request with a Starlette response."""
        return await self._replica(request)


app = Classifier.bind(CODE)  # type: ignore[attr-defined]  # the decorator has made a Deployment of the class
