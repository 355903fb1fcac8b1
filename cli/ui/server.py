"""The page's server. It answers nobody but its own page, and calls nothing but the function's URL."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cli.data.dataset import read_data_set
from cli.errors import LOCAL_HINT, KennelError, NotReadyError
from cli.serving.function_client import BUSY, FunctionClient
from model.training.data.dataset import display_labels

PAGE = Path(__file__).with_name("page")
_MAX_BODY = 64 * 2**20  # bytes: more than the function takes, so that most of what is too large is told why
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
    "'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_server(port: int, connect: Callable[[], FunctionClient], data: Path) -> uvicorn.Server:
    """Return the server of the page; `connect` looks up the function, `data` is a data set with samples of breeds."""
    samples = cache(lambda: find_samples(data))
    connected: list[FunctionClient] = []  # the client that works, if any

    def ask(body: bytes, is_address: bool) -> dict[str, Any]:
        try:
            client = next(iter(connected), None) or connect()
            answer = client.classify_url(body.decode()) if is_address else client.classify_bytes(body)
        except KennelError as error:
            connected.clear()
            restart = "\nkennel ui reads variables at its start: when they are set, start it again."
            return {"error": str(error), "hint": error.hint + restart * (LOCAL_HINT in error.hint)}
        connected[:] = [] if answer.status == 403 else [client]  # the credentials may be others next time
        if answer.error:
            busy = BUSY.get(answer.status)
            return {"error": answer.error, "status": answer.status, "busy": busy, "retry_after": answer.retry_after}
        numbers = [number for label, number in samples() if label == answer.body["predictions"][0]["label"]]
        return {**answer.body, "milliseconds": answer.milliseconds, "samples": numbers}

    async def classify(request: Request) -> Response:
        is_address = request.headers.get("content-type") == "text/uri-list"
        return JSONResponse(await run_in_threadpool(ask, await request.body(), is_address))

    def sample(request: Request) -> Response:
        path = samples().get((request.query_params.get("label"), request.query_params.get("number")))
        return FileResponse(path) if path else Response(status_code=404)

    async def guard(request: Request, call: RequestResponseEndpoint) -> Response:
        headers = request.headers
        own = headers.get("host") in (f"127.0.0.1:{port}", f"localhost:{port}")  # against DNS rebinding
        if request.method not in ("GET", "HEAD"):  # against CSRF: it comes from the page itself
            own &= headers.get("origin") == f"http://{headers.get('host')}"
            own &= headers.get("sec-fetch-site", "same-origin") == "same-origin"
            own &= int(headers.get("content-length", _MAX_BODY)) < _MAX_BODY
        response = await call(request) if own else PlainTextResponse("Only the page may ask.", 403)
        response.headers.update(_HEADERS)
        return response

    routes = [Route("/classify", classify, methods=["POST"]), Route("/sample", sample)]
    routes.append(Mount("/", StaticFiles(directory=PAGE, html=True)))  # type: ignore[arg-type]
    app = Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])
    config = {"lifespan": "off", "ws": "none", "log_level": "critical", "timeout_graceful_shutdown": 1}
    return uvicorn.Server(uvicorn.Config(app, server_header=False, **config))  # type: ignore[arg-type]


def find_samples(data: Path) -> dict[Any, Path]:
    """Return up to four training images of each class, by its name in a model and a number."""
    try:
        train = read_data_set(data).splits["train"]
    except NotReadyError:
        return {}
    samples, labels = dict[Any, Path](), display_labels(train.labels)
    for target, found in groupby(zip(train.targets, train.paths, strict=True), itemgetter(0)):  # they are sorted
        samples |= {(labels[target], str(number)): path for number, (_, path) in enumerate(islice(found, 4))}
    return samples
