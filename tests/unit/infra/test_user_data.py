"""The user data of training instances, run in a sandbox: the instance ends, whatever happens."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from waiting import wait_until

from programs.ec2_training import render_user_data

VALUES = {"data_bucket": "data", "log_group": "group", "program_bucket": "assets", "program_key": "abc.zip"}
VALUES |= {"limit_minutes": "90", "region": "eu-west-1"}
LIMIT, END = "shutdown -P +90", "shutdown -P now"


class Sandbox:
    """A machine whose commands write down that they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / "bin").mkdir()
        for name in ("shutdown", "poweroff", "sleep"):
            self.command(name)
        self.python(program="exit 0")

    def command(self, name: str, then: str = "exit 0") -> None:
        path = self.folder / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.calls}\n{then}\n')
        path.chmod(0o755)

    def python(self, *, fetch: str = "touch program.zip", program: str) -> None:
        """What Python does with the text that fetches the program, and with the program."""
        fetching = f'if [ "$1" = - ]; then cat >> {self.folder}/fetched; {fetch}; else {program}; fi'
        self.command("python", fetching)

    def start(self) -> subprocess.Popen[str]:
        script = self.folder / "cloud" / "scripts" / "part-001"  # as cloud-init has it
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(render_user_data(VALUES))
        script.chmod(0o755)
        (self.folder / "home").mkdir(exist_ok=True)
        environment = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": str(self.folder / "home")}
        return subprocess.Popen([str(script)], env=environment, cwd=self.folder, start_new_session=True, text=True)

    def run(self) -> list[str]:
        """Everything that was called, in its order."""
        self.start().wait(30)
        return self.called()

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_the_limit_is_set_before_the_program_and_its_failure_ends_the_instance(sandbox: Sandbox) -> None:
    sandbox.python(program="exit 1")
    folder = f"{sandbox.folder}/home/training"
    program = f"python program.zip --bucket data --log-group group --folder {folder}"
    assert sandbox.run() == [LIMIT, "python -", program, END]
    fetched = (sandbox.folder / "fetched").read_text()
    assert 'download_file("assets", "abc.zip", "program.zip")' in fetched
    compile(fetched, "user data", "exec")


def test_after_a_restart_it_runs_again_and_ends_the_instance(sandbox: Sandbox) -> None:
    marks = sandbox.folder / "cloud" / "sem"
    marks.mkdir(parents=True)
    for name in ("config_scripts_user", "config-scripts-user", "config_ssh"):
        (marks / name).touch()
    sandbox.run()
    assert [path.name for path in marks.iterdir()] == ["config_ssh"]
    sandbox.calls.unlink()
    assert sandbox.run() == [LIMIT, END]


def test_a_program_that_cannot_be_fetched_is_tried_again_and_then_the_instance_ends(sandbox: Sandbox) -> None:
    sandbox.python(fetch="exit 1", program="exit 2")
    called = sandbox.run()
    assert called.count("python -") == 5
    assert [call for call in called if call.startswith("sleep")] == [f"sleep {5 * n}" for n in range(1, 6)]
    assert called[-1] == END


@pytest.mark.parametrize(("command", "calls"), [("shutdown", [LIMIT, "poweroff "]), ("mkdir", [LIMIT, "mkdir", END])])
def test_an_instance_without_a_limit_or_a_folder_trains_nothing(sandbox, command, calls):
    sandbox.command(command, "exit 1")
    assert [call.split(" /")[0] for call in sandbox.run()] == calls


def test_a_signal_ends_the_instance(sandbox: Sandbox) -> None:
    sandbox.python(program="/bin/sleep 5")
    running = sandbox.start()
    wait_until(lambda: any("program.zip" in call for call in sandbox.called()))
    running.send_signal(signal.SIGTERM)
    running.wait(30)
    assert sandbox.called()[-1] == END
