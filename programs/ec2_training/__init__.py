"""What a training instance runs: the user data that EC2 starts, and the program that the user data fetches and starts.

The program is run as one zip file (`__main__.py` and `training_instance`), with the standard library and boto3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
#: What is part of the program, as a git-ignore file would exclude the rest.
EXCLUDE = ["*", "!/__main__.py", "!/training_instance", "!/training_instance/*.py"]


def render_user_data(values: Mapping[str, object]) -> str:
    """Fill in each ``{{name}}`` of ``user_data.sh``; the values may be CloudFormation tokens."""
    text = (FOLDER / "user_data.sh").read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda match: str(values[match[1]]), text)
