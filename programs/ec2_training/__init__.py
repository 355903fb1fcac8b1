"""What a training instance runs: the user data that EC2 starts, and the program that the user data fetches and starts.

`__main__.py` and the package `training_instance` are the program: an asset of the training stack, run on the instance
as one zip file with nothing but the standard library and boto3. They import nothing of this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
#: What is part of the program, as a git-ignore file would exclude the rest.
EXCLUDE = ("*", "!/__main__.py", "!/training_instance", "!/training_instance/*.py")


def render_user_data(values: Mapping[str, object]) -> str:
    """Fill in the user data.

    Parameters
    ----------
    values
        For each ``{{name}}`` of ``user_data.sh``: data_bucket, limit_minutes, log_group, program_bucket, program_key,
        region. They may be CloudFormation tokens.

    Raises
    ------
    ValueError
        When a value is missing or not asked for.
    """
    text = (FOLDER / "user_data.sh").read_text(encoding="utf-8")
    for name, value in values.items():
        if f"{{{{{name}}}}}" not in text:
            raise ValueError(f"The user data has no {name}.")
        text = text.replace(f"{{{{{name}}}}}", str(value))
    if "{{" in text:
        raise ValueError(f"The user data needs {text.partition('{{')[2].partition('}}')[0]}.")
    return text
