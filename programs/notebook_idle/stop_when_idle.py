"""Stop the notebook instance that this runs on when nobody has used it for a while.

A lifecycle configuration puts this file onto the instance and has systemd run it every few minutes, with the standard
library and the `aws` command, which every notebook instance has. Jupyter itself says when it was last used: the local
API of a notebook instance asks for no token.
"""

import json
import ssl
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

JUPYTER = "https://localhost:8443/api/"
METADATA = Path("/opt/ml/metadata/resource-metadata.json")
UPTIME = Path("/proc/uptime")


def last_used(status: dict[str, Any], kernels: list[Any], terminals: list[Any], booted: float, now: float) -> float:
    """When somebody last used the notebook, in seconds since the epoch; starting the instance counts as using it."""
    if any(kernel.get("execution_state") == "busy" for kernel in kernels):
        return now  # a kernel that computes
    moments = [item["last_activity"] for item in (status, *kernels, *terminals) if item.get("last_activity")]
    return max([booted, *(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() for moment in moments)])


def jupyter(what: str) -> Any:
    """An answer of Jupyter's API."""
    # Without `no_track_activity` asking counts as using (jupyter_server, `APIHandler.update_api_activity`).
    certificate = ssl._create_unverified_context()  # noqa: S323 - the instance's own, for this machine's own name
    address = f"{JUPYTER}{what}?no_track_activity=1"
    with urllib.request.urlopen(address, timeout=10, context=certificate) as answer:  # noqa: S310
        return json.load(answer)


def main(idle_seconds: float) -> int:
    """Stop the instance if it has been idle for so long."""
    now = time.time()
    booted = now - float(UPTIME.read_text().split()[0])
    if now - booted < idle_seconds:
        return 0
    try:
        status, kernels, terminals = jupyter("status"), jupyter("kernels"), jupyter("terminals")
    except OSError as error:  # nobody can be using a server that does not answer
        sys.stderr.write(f"Jupyter does not answer: {error}\n")
        status, kernels, terminals = {}, [], []
    idle = now - last_used(status, kernels, terminals, booted, now)
    if idle < idle_seconds:
        return 0
    metadata = json.loads(METADATA.read_text())
    region = metadata["ResourceArn"].split(":")[3]
    command = ["aws", "sagemaker", "stop-notebook-instance", "--region", region]
    sys.stderr.write(f"Idle for {idle / 60:.0f} minutes: stopping.\n")
    return subprocess.run([*command, "--notebook-instance-name", metadata["ResourceName"]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
