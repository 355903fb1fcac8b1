"""Properties of CloudFormation's resources that neither MiniStack's code nor ours reads."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ministack.services.cloudformation import provisioners

import emulator
from emulator.ministack.cloudformation.schemas import schemas
from emulator.ministack.door import available


def unread() -> Iterator[tuple[str, str]]:
    """Give type and property, for every type that MiniStack makes here; what APIs have is held to another table."""
    available.install()
    ours = [file.read_text() for file in Path(emulator.__path__[0]).rglob("*.py")]
    for name, handlers in provisioners._RESOURCE_HANDLERS.items():
        if name not in schemas() or name.startswith("AWS::ApiGateway::"):
            continue
        read = set(_words("".join(text for text in ours if name in text))) | _read([*handlers.values()])
        yield from ((name, member) for member in schemas()[name]["properties"] if member not in read)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _read(handlers: list[Any]) -> set[str]:
    """The words in functions, and in those that they call: of their module, or of a service with all properties."""
    words, met = set(), set[Callable[..., Any]]()
    while handlers:
        function = handlers.pop()
        if not isinstance(function, FunctionType) or function in met:
            continue
        met.add(function)
        source = inspect.getsource(function)
        if not source.lstrip().startswith("def"):  # a lambda in a table
            words.update(_words(source))
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(source))):
            if isinstance(node, ast.Constant):
                words.update(_words(str(node.value)))
            elif isinstance(node, ast.Name):
                named = function.__globals__.get(node.id)
                if isinstance(named, FunctionType) and named.__module__ == function.__module__:
                    handlers.append(named)
                elif isinstance(named, tuple | list | dict | set):
                    words.update(_words(repr(named)))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = function.__globals__.get(getattr(node.func.value, "id", ""))
                if isinstance(of, ModuleType) and any("prop" in getattr(given, "id", "") for given in node.args):
                    handlers.append(getattr(of, node.func.attr))
    return words
