"""The page of `kennel ui` on a port of its own, in front of a function that a test makes."""

import contextlib
import socket
import threading

import boto3
from fake_stage import FakeStage

from cli.serving.function_client import FunctionClient
from cli.ui.server import make_server


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
