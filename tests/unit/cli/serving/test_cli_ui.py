"""`kennel ui` as a program: what it says of expired credentials and of a port in use, and how it ends."""

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from lambda_fakes import CREDENTIALS, drip, fake_server, reply
from waiting import wait_until

EXPIRED = b"<ErrorResponse><Error><Code>ExpiredToken</Code><Message>It is old.</Message></Error></ErrorResponse>"


def test_it_says_that_credentials_are_expired_and_ctrl_c_ends_it_at_once_and_silently(no_aws, kennel):
    with fake_server(reply(403, raw=EXPIRED)) as aws:
        where = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws.port}", "AWS_REGION": "us-east-1"}
        command = [Path(sys.executable).with_name("kennel"), "ui", "--port=0", "--no-open"]
        options = {"env": {**os.environ, **CREDENTIALS, **where}, "stdout": -1, "stderr": -1, "text": True}
        with subprocess.Popen(command, **options) as page:
            port = page.stdout.readline().split(":")[3].partition("/")[0]
            connection = http.client.HTTPConnection("127.0.0.1", int(port))
            connection.request("POST", "/classify", b"x", {"Origin": f"http://127.0.0.1:{port}"})
            said = json.loads(connection.getresponse().read())
            assert "It is old. (ExpiredToken)" in said["error"] and "not valid there (any more)" in said["hint"]
            assert "start it again" in said["hint"]  # its variables are those of its start
            assert kennel("ui", "--port", port)[1].startswith(f"error: Port {port} cannot be used: Address already")
            aws.answers[:] = [drip(aws, None)]
            before = len(aws.requests)
            connection.request("POST", "/classify", b"x", {"Origin": f"http://127.0.0.1:{port}"})
            wait_until(lambda: len(aws.requests) > before)
            page.send_signal(signal.SIGINT)
            assert page.wait(timeout=8) == 0 and page.communicate() == ("", "")  # AWS would take longer
