"""What a program finds as in a container: a Python of its own, torchvision, and its folder at /opt/ml."""

from __future__ import annotations

import subprocess
import sysconfig
import zipfile
from pathlib import Path

import pytest

from emulator.containers import mounts, python


@pytest.mark.parametrize("pip", ["pip", "python3 -m pip"])
def test_pip_installs_what_is_missing_and_leaves_the_servers_environment_alone(tmp_path: Path, pip: str) -> None:
    python.create(tmp_path / "python")
    environment = python.environment(tmp_path / "python", tmp_path, isolated=True, given={"PIP_NO_INDEX": "0"})
    assert environment["PIP_NO_INDEX"] == "1"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)

    for name in ("absent", "iniconfig"):  # the second is there, in another version
        about = f"{name}-99.0.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-99.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("local_aws_toolkit/__init__.py", "")  # must not reach the file that it is a copy of
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    packages = Path(sysconfig.get_path("purelib"))
    sources = {path: path.read_bytes() for path in Path(python.__file__).parent.rglob("*.py")}
    ours = {path.name for path in packages.iterdir()}
    assert "already satisfied: boto3" in run(f"{pip} install ./*.whl boto3").stdout
    versions = "from importlib.metadata import version as v; print(v('absent'), v('iniconfig'))"
    assert run(f'python -c "{versions}"').stdout == "99.0 99.0\n"
    run(f"{pip} uninstall -y boto3")
    assert {path.name for path in packages.iterdir()} == ours
    assert {path: path.read_bytes() for path in sources} == sources
    assert "no-such-package" in run(f"{pip} install no-such-package").stderr
    assert run("python -c 'from torchvision.models import resnet18 as r; print(r.__name__)'").stdout == "resnet18\n"
    assert "No module named 'emulator'" in run("python -c 'import emulator'").stderr


@pytest.mark.skipif(not mounts.available(), reason="this machine lets its users mount nothing")
def test_a_program_has_its_folder_at_opt_ml_and_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    seen = sorted({*(path.name for path in Path("/opt").iterdir()), "ml"})
    command = mounts.command_in(tmp_path, ["sh", "-c", "pwd; echo $$ > /opt/ml/pid; ls /opt; exec sleep 60"])
    with subprocess.Popen(command, cwd=tmp_path / "code", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline().strip() for _ in range(1 + len(seen))]
        process.terminate()
    assert printed == ["/opt/ml/code", *seen]
    assert (int((tmp_path / "pid").read_text()), process.returncode) == (process.pid, -15)
    assert not Path("/opt/ml/pid").exists()
    printed = subprocess.check_output(
        mounts.command_in(tmp_path, ["/bin/sh", "-c", "echo $PATH; pwd"]),
        cwd=tmp_path,
        env={"PATH": "/absent"},
        text=True,
    )
    assert printed == "/absent\n/opt/ml\n"
