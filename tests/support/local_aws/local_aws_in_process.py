"""Put requests to the local AWS of a state folder without a server, in a process that may change MiniStack's modules.

Reads a JSON list of requests (``sign``: for which service, with the administrator's key, for whose id the text
``ADMINISTRATOR`` stands). Writes for each its status, whether MiniStack saw it, and whether a service's handler did.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.platform.conditions import Conditions
from emulator.platform.running.layout import StateDir
from emulator.platform.running.server import LocalAws

HOST = "127.0.0.1:4566"


def main(state_dir: Path) -> None:
    place = StateDir(state_dir)
    place.prepare()
    place.make_temporary()
    LocalAws(place, 4566, Conditions())
    from ministack import app

    from emulator.ministack.door import authentication

    key = place.credentials()
    seen: list[str] = []

    async def handler(*_: Any) -> tuple[int, dict[str, str], bytes]:
        seen.append("handler")
        return 200, {}, b"{}"

    async def ministack(scope: Any, receive: Any, send: Any) -> None:
        seen.append("ministack")
        await app.app(scope, receive, send)

    def encoded(text: str) -> bytes:
        return text.replace("ADMINISTRATOR", key.access_key_id).encode()

    app.SERVICE_HANDLERS.update(dict.fromkeys(app.SERVICE_HANDLERS, handler))
    door = authentication.gate(ministack)

    async def put(request: dict[str, Any]) -> list[Any]:
        seen.clear()
        method, path, query = request["method"], request["path"], request.get("query", "")
        body = request.get("body", "").encode()
        headers = [(name.lower(), value) for name, value in request.get("headers", [])]
        if not any(name == "host" for name, _ in headers):
            headers.append(("host", HOST))
        if service := request.get("sign"):
            signed = AWSRequest(method, f"http://{HOST}{path}?{query}".rstrip("?"), data=body, headers=dict(headers))
            SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), service, "us-east-1").add_auth(signed)
            headers = [(name.lower(), value) for name, value in signed.headers.items()]
        scope = {
            "type": request.get("type", "http"),
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": encoded(query),
            "headers": [(name.encode(), encoded(value)) for name, value in headers],
            "client": ("127.0.0.1", 1),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await door(scope, receive, send)
        status = next((message["status"] for message in sent if "status" in message), 0)
        return [status, "ministack" in seen, "handler" in seen]

    async def put_all() -> list[list[Any]]:
        return [await put(request) for request in json.load(sys.stdin)]

    json.dump({"results": asyncio.run(put_all())}, sys.stdout)


main(Path(sys.argv[1]))
