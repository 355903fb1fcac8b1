"""How soon an empty local AWS answers, and what it takes: python -m benchmarks.local_aws_start

Each round starts `python -m emulator up` on a new folder; the server's processor seconds change less on a busy machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time

import psutil

from benchmarks.measuring import Goal, finish, interleaved, machine, make_parser, markdown_table, tree_cpu_seconds
from cli.console import console
from emulator.platform.settings import free_port


def measure() -> tuple[float, float, float]:
    """Return seconds until it answers, processor seconds of the server, memory of all its processes in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command, began = [sys.executable, "-m", "emulator"], time.perf_counter()
        up = [*command, "up", "--state-dir", folder, "--port", str(free_port())]
        said = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True).stdout
        seconds, server = time.perf_counter() - began, psutil.Process(int(re.findall(r"process (\d+)", said)[0]))
        memory = sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))
        processor = tree_cpu_seconds(server.pid)
        subprocess.run([*command, "down", "--state-dir", folder], check=True)
    return seconds, processor, memory / 1e6


def main() -> int:
    arguments = make_parser("local_aws_start", __doc__, rounds=5).parse_args()
    described = machine(("ministack", "botocore"))
    measure()  # writes bytecode
    (rounds,) = interleaved({"local AWS": measure}, arguments.rounds).values()
    best = [min(figures) for figures in zip(*rounds, strict=True)]
    columns = ("seconds until it answers", "server's processor s", "memory MB (RSS)")
    rows = [[f"{figure:.2f}" for figure in each] for each in (*rounds, best)]
    console.print(markdown_table("An empty local AWS; last line: the best of each", columns, rows))
    goals = [Goal("until it answers", best[0], 2, False, " s"), Goal("memory", best[2], 150, False, " MB")]
    return finish(arguments, {"machine": described, "rounds": rounds}, goals)


if __name__ == "__main__":
    sys.exit(main())
