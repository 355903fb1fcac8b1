"""A Python environment for one container: it has the packages of the server's, and takes further ones itself.

So `pip install` there leaves the environment that the server runs in as it is.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from emulator.platform.settings import base_environment

#: The package that serves scripts, under the name that it has there.
TOOLKIT = "local_aws_toolkit"
_INSTALLED = {TOOLKIT: "toolkit", "local_aws_torchvision.py": "torchvision_operators.py"}


def create(directory: Path) -> Path:
    """Make the environment in a folder, in place of what is there; its interpreter."""
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=importlib.util.find_spec("pip") is None).create(directory)
    packages = next(directory.glob("lib/python*/site-packages"))
    # As paths: their own .pth files stay unread, so that what is installed for editing, as this project, is not there.
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "local_aws.pth").write_text("\n".join([*ours, "import local_aws_torchvision"]))
    for name, source in _INSTALLED.items():  # copies: a package with such a name would write through a link
        origin = Path(__file__).with_name(source)
        copy = shutil.copytree if origin.is_dir() else shutil.copyfile
        copy(origin, packages / name)
    here, there = Path(sys.executable).parent, directory / "bin"
    for script in here.iterdir():  # pip, torchrun and other commands, run by the new interpreter
        text = script.read_bytes() if script.is_file() and script.stat().st_size < 2**16 else b""
        if text.startswith(b"#!") and not (there / script.name).exists():
            (there / script.name).write_bytes(text.replace(b"%s/python" % bytes(here), b"%s/python" % bytes(there)))
            (there / script.name).chmod(0o755)
    return there / "python"


def environment(directory: Path, temporary: Path, isolated: bool, given: Mapping[str, str]) -> dict[str, str]:
    """Make the variables of a program in an environment; without a network, pip asks no index, whatever is given."""
    base = base_environment(temporary)
    variables = {"PATH": f"{directory / 'bin'}:{base['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**base, **variables, **given, **({"PIP_NO_INDEX": "1"} if isolated else {})}
