"""Whether the model server's memory stays flat: python -m benchmarks.serving_memory

20,000 requests with images of all sizes, colour modes and formats, some broken, some in JSON, from eight callers.
The memory of all the server's processes is read while nothing is asked, after the first 1,000 and then every 5,000.
What is kept from one request to the next shows as growth between the first reading and the last.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from benchmarks.measuring import Goal, finish, machine, markdown_table, tree_memory
from benchmarks.serving_model import draw_images, make_artifacts
from benchmarks.serving_systems import our_program, started, wait_for_answer
from cli.console import console
from cli.load.generator import Call, closed_loop

CALLERS = 8
FIRST_READING = 1_000
READINGS_EVERY = 5_000
#: Of both workers and the process in front of them together. The allocator's own unrest is of this order.
MAX_GROWTH_MB = 16
IMAGES = 300

# What Pillow writes in each format, by mode.
_MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "GIF": ("P", "L"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("RGB", "L", "1"),
    "TIFF": ("RGB", "CMYK", "I;16", "F", "L"),
}

Question = tuple[bytes, dict[str, str]]


def main() -> int:
    """Measure, print, and return the exit status: 1 when the memory has grown by more than `MAX_GROWTH_MB`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=20_000, help="how many, at least 2,000 (%(default)s)")
    parser.add_argument("--artifact", type=Path, help="folder of an unpacked model artifact; default: a small network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    arguments = parser.parse_args()
    if arguments.requests < 2 * FIRST_READING:
        parser.error(f"--requests must be at least {2 * FIRST_READING:,}")
    arguments.check = True
    about = machine(["onnxruntime", "pillow", "numpy"])
    with tempfile.TemporaryDirectory() as folder:
        artifact = arguments.artifact
        if artifact is None:  # what is measured is the program around the network, so a small one will do
            artifact = make_artifacts(Path(folder), "resnet9", 64, draw_images())[0].folder
        program, settings, url = our_program(artifact, SAGEMAKER_MODEL_SERVER_WORKERS="2")
        log = Path(folder) / "server.log"
        with started(program, settings, log) as process:
            wait_for_answer(Call(url, {"Content-Type": "image/jpeg"}, draw_images()[0]), None, process, log)
            calls = [Call(url, headers, body) for body, headers in questions()]
            readings, statuses = measure(process.pid, calls, arguments.requests)
    rows = [(f"{count:,}", f"{megabytes:.1f}") for count, megabytes in readings.items()]
    console.print(markdown_table("Memory of the server's processes", ("requests", "MB"), rows))
    console.print("Answers: " + ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items())))
    growth = readings[max(readings)] - readings[FIRST_READING]
    goals = [
        Goal(f"growth after the first {FIRST_READING:,} requests", growth, MAX_GROWTH_MB, at_least=False, unit=" MB"),
        Goal("answers 5xx", sum(statuses[status] for status in statuses if status >= 500), 0, at_least=False),
    ]
    return finish(arguments, {"machine": about, "megabytes": readings, "statuses": statuses}, goals)


def questions() -> list[Question]:
    """Draw images of all kinds; some are cut off, some are no images, some come in JSON."""
    chance, grain = random.Random(0), np.random.default_rng(0)
    asked: list[Question] = []
    for index in range(IMAGES):
        file_format = chance.choice(list(_MODES))
        # Most are small, one in fifty is a camera's.
        width, height = (4000, 3000) if index % 50 == 0 else (chance.randint(1, 900), chance.randint(1, 900))
        data = _image(grain, width, height, chance.choice(_MODES[file_format]), file_format)
        kind = chance.random()
        if kind < 0.1:
            data = data[: len(data) // chance.randint(2, 9)]
        elif kind < 0.15:
            data = grain.bytes(chance.randint(0, 100_000))
        if kind > 0.85 and len(data) < 500_000:
            body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
            asked.append((body, {"Content-Type": "application/json"}))
        else:
            asked.append((data, {"Content-Type": "image/png; scores=true"}))
    asked.append((bytes(7_000_000), {"Content-Type": "image/png"}))
    asked.append((b"{", {"Content-Type": "application/json"}))
    return asked


def _image(grain: np.random.Generator, width: int, height: int, mode: str, file_format: str) -> bytes:
    # A few blocks of colour, so that also large images compress to what a request may have.
    blocks = Image.fromarray(grain.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(blocks.convert("L")).astype(np.uint16) * 257)
    else:
        image = blocks.convert("RGBA").convert(mode) if mode in ("RGBA", "LA") else blocks.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def measure(pid: int, calls: Sequence[Call], requests: int) -> tuple[dict[int, float], Counter[int]]:
    """Ask, and return the megabytes of the process tree by the number of requests, and how often each status came."""
    readings: dict[int, float] = {}
    statuses: Counter[int] = Counter()

    def count(_: Call, status: int, __: bytes) -> None:
        statuses[status] += 1

    async def until(stop: int) -> None:
        while statuses.total() < stop:
            await asyncio.sleep(0.01)

    stops = [FIRST_READING, *range(READINGS_EVERY, requests, READINGS_EVERY), requests]
    for stop in track(stops, description="Asking", console=console):
        results = asyncio.run(closed_loop(calls, CALLERS, partial(until, stop), count, 60))
        if faults := [result.fault for result in results if result.fault]:
            raise SystemExit(f"The model server does not answer: {faults[0]}")
        readings[stop] = tree_memory(pid).pss / 1e6
    return readings, statuses


if __name__ == "__main__":
    sys.exit(main())
