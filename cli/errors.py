"""What can go wrong on the command line, and the exit code that says so (docs/command-line.md lists them).

One small tree: a command raises, `cli.main` prints one message and exits. Anything outside the tree is a bug: its stack
trace goes to a file (`BugError`).
"""

from __future__ import annotations

import platform
import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version

import botocore.exceptions


class KennelError(Exception):
    """Base of the errors that are shown to a person: what was wrong and what is allowed, and what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BugError(KennelError):
    """A bug of this program (exit code 1); its trace is shown, or written where only its owner can read it."""

    def __init__(self, error: Exception, *, show: bool = False) -> None:
        from cli.console import plain  # which imports this module

        trace = plain("".join(traceback.format_exception(error)))
        hint = "To see its stack trace: kennel --debug COMMAND"
        if not show:
            with suppress(OSError):  # neither environment nor arguments: they may hold what is secret
                with tempfile.NamedTemporaryFile("w", prefix="kennel-bug-", suffix=".txt", delete=False) as file:
                    about = f"kennel {version('kennel')}, Python {platform.python_version()}, {platform.platform()}"
                    file.write(f"{about}\n{trace}")
                hint = f"Please report it, with this file and what you did: {file.name}\n{hint}"
        super().__init__(f"this is a bug in kennel: {type(error).__name__}: {error}", trace if show else hint)


class NotAgreedError(KennelError):
    """A person answered a question with no (exit code 1)."""


class UsageError(KennelError):
    """The command line itself is wrong: a bad value, or options that do not go together (exit code 2)."""

    exit_code = 2


class NotReadyError(KennelError):
    """Something needed first is missing or not usable (exit code 3)."""

    exit_code = 3


class AwsError(KennelError):
    """AWS refused the call or could not be reached (exit code 4)."""

    exit_code = 4


class WorkFailedError(KennelError):
    """A training job or a deployment was started and failed (exit code 5)."""

    exit_code = 5


class UnhealthyError(KennelError):
    """What is deployed is not as it should be (exit code 6)."""

    exit_code = 6


LOCAL_HINT = (
    'On this machine, without an account: kennel local up, then eval "$(kennel local env)"\n'
    "In an AWS account: aws configure, then docs/first-deploy.md"
)


@contextmanager
def goes_on(note: str) -> Iterator[None]:
    """Have Ctrl-C in the block say what goes on all the same, what that costs, and how to end it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(note)
        raise


#: Code and message of what AWS answers of a name that it does not know; a refusal may say so of what it hides.
_MISSING = re.compile(r"(?!.*(Denied|Auth).*\n)(.*(NoSuch|NotFound).*\n|(?s:.*)(?i:not found|could not find))")


@contextmanager
def aws_errors(missing: KennelError | None = None) -> Iterator[None]:
    """Turn botocore's exceptions into an `AwsError` that says what to do, or into `missing` where AWS finds nothing."""
    try:
        yield
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise AwsError("No AWS credentials in the environment.", LOCAL_HINT) from error
    except (botocore.exceptions.EndpointConnectionError, botocore.exceptions.ConnectionError) as error:
        raise AwsError(f"AWS cannot be reached: {error}", LOCAL_HINT) from error
    except botocore.exceptions.ClientError as error:
        details = error.response.get("Error", {})
        code, message = details.get("Code", "Unknown"), details.get("Message", str(error))
        if missing is not None and _MISSING.match(f"{code}\n{message}"):
            raise missing from None
        hint = ""
        if code in ("InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException"):
            hint = f"The credentials are not valid there (any more).\n{LOCAL_HINT}"
        raise AwsError(f"AWS refused {error.operation_name}: {message} ({code})", hint) from error
    except botocore.exceptions.BotoCoreError as error:
        raise AwsError(f"The AWS call failed: {error}") from error
