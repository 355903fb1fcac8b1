"""Serve a model: ``python -m <this package> pytorch`` or ``scikit_learn``, configured by the container's variables.

The workers are processes of their own, so that GET /ping is answered while all of them are at work.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from . import common

#: TorchServe's limit for a request, in bytes; nginx in front of scikit-learn has none.
_MAX_REQUEST = "6553500"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written one after the other
    workers: ProcessPoolExecutor
    timeout_seconds: float
    max_request: float

    def do_GET(self) -> None:
        self._send(200 if self.path == "/ping" else 404, {}, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if len(body) > self.max_request:
            return self._send(413, {}, f"The request has more than {self.max_request} bytes.".encode())
        headers = {name.title(): value for name, value in self.headers.items()}
        try:
            answer = self.workers.submit(common.handle, body, headers).result(self.timeout_seconds)
        except (TimeoutError, BrokenProcessPool) as error:
            late = isinstance(error, TimeoutError)
            problem = f"did not respond within {self.timeout_seconds} seconds" if late else "died"
            self._send(500, {}, f"A worker {problem}; the container is started again.".encode())
            os._exit(1)  # and with it all of its process group
        return self._send(*answer)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print no line for each request."""


def _code_folder(framework: str, model: Path) -> Path:
    """Say where the script is; scikit-learn's container must be told, and which it is."""
    if framework == "pytorch":
        return model / "code"
    submitted = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    folder = model.parent / "code" if submitted.startswith("s3://") else Path(submitted or "missing")
    if not folder.is_dir() or not os.environ.get("SAGEMAKER_PROGRAM"):
        sys.exit("Give SAGEMAKER_PROGRAM, and SAGEMAKER_SUBMIT_DIRECTORY: s3://…/sourcedir.tar.gz or a folder.")
    return folder


def main(framework: str) -> None:
    code = _code_folder(framework, Path(os.environ["SM_MODEL_DIR"]))
    sys.path.insert(0, str(code))  # of the workers, which inherit it
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    pip = [sys.executable, "-m", "pip", "install", "-r", str(code / "requirements.txt")]
    if Path(pip[-1]).is_file() and subprocess.run(pip, check=False).returncode:
        sys.exit("failed to install required packages, exiting")
    count = int(os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS") or 1)
    Handler.timeout_seconds = float(os.environ.get("SAGEMAKER_MODEL_SERVER_TIMEOUT") or 60)
    limit = os.environ.get("TS_MAX_REQUEST_SIZE", _MAX_REQUEST) if framework == "pytorch" else "inf"
    Handler.max_request = float(limit)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, spawn, common.load, (framework,)) as Handler.workers:
        try:
            for loaded in [Handler.workers.submit(os.getpid) for _ in range(count)]:
                loaded.result()
        except BrokenProcessPool:
            sys.exit("the model could not be loaded, exiting")
        address = os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
        ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
