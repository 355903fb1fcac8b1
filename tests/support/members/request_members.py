"""Every member of every request that our services take, walked in botocore's models, and requests with one of them."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape
from emulator_fixtures import ACCOUNT, make_host
from hypothesis import Phase, find, settings
from hypothesis.strategies import from_regex

import emulator
from emulator.autoscaling.service import ApplicationAutoScaling
from emulator.ministack.door import available
from emulator.ministack.door.members import MODELS, xml_shape
from emulator.platform import validation
from emulator.platform.awsapi import Payload, Service, service_model
from emulator.platform.validation import Fate, compile_pattern, fates, section
from emulator.quotas.service import Quotas, ServiceQuotas
from emulator.sagemaker import SageMaker
from emulator.sagemaker.resources import KINDS

RUNTIME = "sagemaker-runtime"
#: Found without an import, which would read the environment.
MINISTACK = Path(importlib.metadata.distribution("ministack").locate_file("ministack"))
#: By service, the folders of its code, and of what serves all.
CODE = {
    "sagemaker": "sagemaker platform/awsapi.py",
    RUNTIME: "sagemaker/endpoints",
    "cloudwatch": f"ministack/cloudwatch {MINISTACK}/services/cloudwatch.py",
    "application-autoscaling": "autoscaling platform/awsapi.py",
    "service-quotas": "quotas platform/awsapi.py",
}

#: By MiniStack's name of a service, its code.
MODULES = {
    **{name: f"{name}.py" for name in ("ec2", "kms", "s3", "sns", "ssm")},
    **{"apigateway": "apigateway_v1.py", "cloudformation": "cloudformation"},
    **{"events": "eventbridge.py", "lambda": "lambda_svc.py"},
    **{"logs": "cloudwatch_logs.py", "monitoring": "cloudwatch.py"},
}


class Member(NamedTuple):
    """A member of a request; `steps` lead to it from the request's structure, `inside` is the one that it is in."""

    service: str
    operation: str
    steps: tuple[str, ...]
    inside: str
    shape: Shape

    @property
    def name(self) -> str:
        return self.steps[-1]

    @property
    def structure(self) -> str:
        """The structure that it is, or a list of."""
        shape = self.shape.member if isinstance(self.shape, ListShape) else self.shape
        return shape.name if isinstance(shape, StructureShape) else ""

    @property
    def said(self) -> list[tuple[str, Fate]]:
        """What the table says of it, each with the section that does; an operation's own counts more than patterns."""
        whole = len(self.steps) == 1
        met = [
            (section, fate)
            for section, listed in fates(self.service).items()
            if (fnmatchcase(self.operation, section) if whole else section == self.inside)
            for name, fate in listed
            if name == self.name
        ]
        return [each for each in met if each[0] == self.inside] or met

    def is_(self, kind: str) -> bool:
        return any(fate.kind == kind for _, fate in self.said)


def make_services(state: Path) -> dict[str, Service]:
    host = make_host(state)
    made = (SageMaker(host), ApplicationAutoScaling(host, {}), ServiceQuotas(ACCOUNT, Quotas()))
    return {service.name: service for service in made}


def find_members(services: dict[str, Service]) -> Iterator[Member]:
    for service in services.values():
        for operation in sorted(service._handlers):
            yield from _members(service.name, operation)
    for service in CODE.keys() - services.keys():
        for operation in fates(service).keys() & set(service_model(service).operation_names):
            yield from _members(service, operation)


def _members(service: str, operation: str) -> Iterator[Member]:
    """Walk the members of a request; not those of a structure that is recorded, refused or without effect."""

    def walk(shape: Shape, steps: tuple[str, ...]) -> Iterator[Member]:
        if isinstance(shape, ListShape | MapShape):
            yield from walk(getattr(shape, "member", None) or shape.value, (*steps[:-1], f"{steps[-1]}[]"))
        if isinstance(shape, StructureShape):
            here = section(service, operation, shape.name if steps else "")
            for name, of in shape.members.items():
                yield Member(service, operation, (*steps, name), shape.name if steps else operation, of)
                if here.get(name, Fate("acts")).kind == "acts":
                    yield from walk(of, (*steps, name))

    if (request := service_model(service).operation_model(operation).input_shape) is not None:
        yield from walk(request, ())


@functools.cache
def constants(service: str, section: str) -> frozenset[str]:
    """The texts in the code that reads what acts of a section, and the names that SageMaker's kinds make."""
    table = tomllib.loads((Path(validation.__file__).with_name("members") / f"{service}.toml").read_text())
    found = {name for kind in KINDS for name in (kind.name_member, kind.arn_member) if service == "sagemaker"}
    for name in str(table[section].get("code", CODE[service])).split():
        place = Path(emulator.__path__[0], name)
        found.update(*map(texts, place.rglob("*.py") if place.is_dir() else [place]))
    return frozenset(found)


@functools.cache
def texts(file: Path) -> set[str]:
    """Give the texts of a file, without its docstrings: what they speak of is read by nothing."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    spoken = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    found = (node for node in nodes if isinstance(node, ast.Constant) and id(node) not in spoken)
    return {node.value for node in found if isinstance(node.value, str)}


def forgotten(service: str) -> Iterator[tuple[str, str]]:
    """Give operation (or structure) and member, for every operation that MiniStack has and answers."""
    place = MINISTACK / "services" / MODULES[service]
    files = list(place.rglob("*.py") if place.is_dir() else [place])
    code = "".join(file.read_text() for file in files)
    ours = Path(emulator.__path__[0], "ministack").rglob("*.py")
    words = [*available.REFUSED, *(text for file in [*files, *ours] for text in texts(file))]
    known = set(re.findall(r"[\w-]+", " ".join(words).lower()))
    model = service_model(MODELS.get(service, service))
    for operation in set(available.ONLY.get(service, model.operation_names)) - fates(MODELS.get(service, "")).keys():
        shape = model.operation_model(operation).input_shape
        named = service in available.ONLY or f'"{operation}"' in code or f"_{xform_name(operation)}(" in code
        if shape is not None and named:
            yield from _dropped(xml_shape(operation)[0] if service == "s3" else None, known)
            for name, of in shape.members.items():
                whole = of.serialization.get("location") == "uri" or name == shape.serialization.get("payload")
                if not whole and not {name.lower(), of.serialization.get("name", name).lower()} & known:
                    yield operation, name


def _dropped(shape: Shape | None, known: set[str]) -> Iterator[tuple[str, str]]:
    """Give structure and member, of what XML may contain; not within what is dropped."""
    shape = shape.member if isinstance(shape, ListShape) else shape
    for name, of in shape.members.items() if isinstance(shape, StructureShape) else ():
        if {name.lower(), of.serialization.get("name", name).lower()} & known:
            yield from _dropped(of, known)
        else:
            yield shape.name, name


def request_with(member: Member) -> Payload:
    """Make a valid request with a member that has a value that is not taken, and little else."""
    shape = service_model(member.service).operation_model(member.operation).input_shape
    made: Payload = _value(member, shape, member.steps, "")
    return made


def _value(member: Member, shape: Shape, steps: tuple[str, ...], name: str) -> Any:
    """Make the smallest value of a shape, but with the member at the end of `steps`."""
    if isinstance(shape, StructureShape):
        here = section(member.service, member.operation, shape.name if name else "")
        wanted = steps[0].removesuffix("[]") if steps else ""
        made = {}
        for each in dict.fromkeys((*shape.metadata.get("required", ()), *filter(None, [wanted]))):
            of, taken = shape.members[each], here.get(each, Fate("acts")).but
            if taken and each == wanted and len(steps) == 1:
                values = of.metadata.get("enum", [of.type_name == "boolean" or 7])
                made[each] = next(value for value in values if value not in taken)
            else:
                made[each] = taken[0] if taken else _value(member, of, steps[1:] if each == wanted else (), each)
        return made
    if isinstance(shape, ListShape):
        return [_value(member, shape.member, steps, name)] * max(1, shape.metadata.get("min", 1))
    if isinstance(shape, MapShape):
        return {_value(member, shape.key, (), name): _value(member, shape.value, (), name)}
    if shape.type_name == "boolean":
        return True
    if shape.type_name != "string":
        return shape.metadata.get("min", 1)
    if values := shape.metadata.get("enum"):
        return values[0]
    limits = shape.metadata
    return _text(limits.get("pattern", "(?s).*"), limits.get("min", 0), limits.get("max", 10_000))


@functools.cache
def _text(pattern: str, least: int, most: int) -> str:
    compiled = compile_pattern(pattern) or ".*"  # botocore has broken ones
    if re.fullmatch(compiled, usual := "a" * max(1, least)):
        return usual
    quick = settings(phases=[Phase.generate], database=None)
    return find(from_regex(compiled, fullmatch=True), lambda text: least <= len(text) <= most, settings=quick)
