"""The page of operations: which act here, which are refused, and which services are closed."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emulator.ministack import configuration
from emulator.platform.awsapi import service_model
from emulator.platform.host import Host
from emulator.platform.processes import ProcessRegistry
from emulator.platform.running.layout import Credentials
from emulator.quotas.service import Quotas, ServiceQuotas

_PAGE = Path(__file__).with_suffix(".txt")


def page() -> str:
    """Write the page from what the services register; changes the environment, which MiniStack reads at its import."""
    with tempfile.TemporaryDirectory() as folder:
        own = configuration.variables(Path(folder), 0, Credentials("", ""))
        configuration.apply({"PATH": os.defpath, "TMPDIR": folder, "HOME": folder, **own})
        from ministack import app

        from emulator.ministack.door import available

        acting, theirs = _acting(Path(folder)), app.SERVICE_HANDLERS.keys()
        counted = ((name, len(found), len(_known(name)), _listed(found)) for name, found in sorted(acting.items()))
        part = (f"- **Open in part:** `{name}`: {_listed(does)}." for name, does in sorted(available.ONLY.items()))
        return _PAGE.read_text(encoding="utf-8").format(
            ours="\n".join(f"| `{name}` | {act} | {known - act} | {all_} |" for name, act, known, all_ in counted),
            open=_listed((theirs & available.SERVICES) - available.ONLY.keys() - acting.keys()),
            refused=_listed(available.REFUSED),
            part="\n".join(part),
            closed=_listed(theirs - available.SERVICES),
        )


def _acting(folder: Path) -> dict[str, list[str]]:
    from emulator.autoscaling.service import ApplicationAutoScaling
    from emulator.sagemaker import SageMaker

    unused: Any = None  # nothing is called
    monitoring: Any = SimpleNamespace(on_alarm=lambda *_: None)
    host = Host("", "", folder, folder, "", ProcessRegistry(folder / "processes"), unused, unused, monitoring)
    sagemaker = SageMaker(host)
    services = (sagemaker, ApplicationAutoScaling(host, {}), ServiceQuotas("", Quotas()))
    runtime = [name for name in _known("sagemaker-runtime") if _answers(sagemaker.runtime, name)]
    return {**{service.name: service.operations for service in services}, "sagemaker-runtime": runtime}


def _known(service: str) -> list[str]:
    return list(service_model(service).operation_names)


def _answers(runtime: Any, operation: str) -> bool:
    """Say whether the runtime has an operation: asked for an endpoint that does not exist, it says that or 501."""
    http = service_model("sagemaker-runtime").operation_model(operation).http
    path = http["requestUri"].replace("{EndpointName}", "none")
    return bool(asyncio.run(runtime.handle(http["method"], path, {}, b"", {}))[0] != 501)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
