"""The log lines of a job's instances, as CloudWatch gets them."""

from __future__ import annotations

import botocore.exceptions

from cli.aws import Stage
from cli.console import console


class JobLog:
    """Prints each log line of a job's instances once.

    Attributes
    ----------
    group : str
        The log group.
    """

    def __init__(self, stage: Stage, job: str, group: str) -> None:
        self.group = group
        self._logs = stage.client("logs")
        self._job = job
        self._tokens: dict[str, str] = {}

    def print_new(self) -> None:
        """Print what has arrived since the last call."""
        try:
            streams = self._logs.describe_log_streams(logGroupName=self.group, logStreamNamePrefix=f"{self._job}/")
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return  # nothing has been logged in this account yet
            raise
        names = sorted(stream["logStreamName"] for stream in streams["logStreams"])
        for name in names:
            prefix = f"{name.split('/')[-1].rsplit('-', 1)[0]}  " if len(names) > 1 else ""
            while self._print_page(name, prefix):
                pass

    def _print_page(self, stream: str, prefix: str) -> bool:
        token = {"nextToken": self._tokens[stream]} if stream in self._tokens else {}
        page = self._logs.get_log_events(logGroupName=self.group, logStreamName=stream, startFromHead=True, **token)
        self._tokens[stream] = page["nextForwardToken"]
        for event in page["events"]:
            console.print(f"  {prefix}{event['message'].rstrip()}", style="dim")
        return bool(page["events"])
