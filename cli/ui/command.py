"""`kennel ui`: listen on the loopback interface, open the page, end with Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.console import console, open_in_browser
from cli.data.commands import SAMPLE_DIR
from cli.errors import NotReadyError
from cli.serving.function_client import FunctionClient


def ui(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8711,
    data: Annotated[Path, typer.Option(help="The data set that samples of a breed are shown from.")] = SAMPLE_DIR,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page where there is a browser.")] = True,
) -> None:
    """Open a page that names the breed in images."""
    from cli.ui.server import make_server  # uvicorn and starlette: not needed by the other commands

    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise NotReadyError(f"Port {port} cannot be used: {error.strerror}.", "To take a free one: --port 0") from error
    port = listening.getsockname()[1]
    # A client has a session of its own, so that renewed credentials are read. The page itself waits, and says so.
    server = make_server(port, lambda: FunctionClient(replace(context.obj), connections=3, pauses=()), data)
    console.print(f"The page: http://127.0.0.1:{port}/ (Ctrl-C ends it)")
    if open_:
        open_in_browser(f"http://127.0.0.1:{port}/")
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    os._exit(0)  # without waiting for the function, which may take a minute to answer nobody
