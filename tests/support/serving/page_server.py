"""The page of `kennel ui` in a browser, or on a port of its own in front of a function that a test makes."""

import contextlib
import shutil
import socket
import threading
from pathlib import Path

import boto3
import pytest
from fake_stage import FakeStage
from playwright.sync_api import expect, sync_playwright

from cli.serving.function_client import FunctionClient
from cli.ui.server import make_server

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
#: Gives the page an image as a person does: ["drop" or "paste", address or "", image in base64].
GIVE = Path(__file__).with_name("give.js").read_text(encoding="utf-8")


@contextlib.contextmanager
def chromium():
    """Start the browser; what a page is to show may take 20 seconds."""
    with sync_playwright() as started, started.chromium.launch(executable_path=_CHROMIUM) as browser:
        expect.set_options(timeout=20_000)
        yield browser


def client_of(port, **options):
    """A client of the function that listens on this machine."""
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    return FunctionClient(FakeStage(outputs={"FunctionUrl": f"http://127.0.0.1:{port}/"}, session=session), **options)


@contextlib.contextmanager
def page_server(connect, data):
    """Run the server; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = make_server(port := listening.getsockname()[1], connect, data)
        (running := threading.Thread(target=server.run, args=([listening],))).start()
        yield port
        server.should_exit = True
        running.join()
