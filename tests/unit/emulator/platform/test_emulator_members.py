"""Nothing is accepted without a word: every member of a request acts, is recorded, is refused, or is without effect."""

from __future__ import annotations

import functools
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from emulator_fixtures import CALLER, IMAGE, refusal, training_job
from members_page import make_page
from ministack.services.cloudformation import provisioners
from request_members import (
    CODE,
    MODULES,
    RUNTIME,
    Member,
    constants,
    find_members,
    forgotten,
    make_services,
    request_with,
)
from template_properties import unread

from emulator.ministack.door.members import MODELS
from emulator.platform.awsapi import Service, service_model
from emulator.platform.store import Store
from emulator.platform.validation import fates, refused_members, section
from emulator.sagemaker.resources import KINDS, Kind, Resources

GROUP = {"ModelPackageGroupName": "dogs"}
GIVEN = {
    "CreateModelPackageGroup": GROUP,
    "CreateTrainingJob": training_job(),
    "CreateModelPackage": {**GROUP, "InferenceSpecification": {"Containers": [{"Image": IMAGE}]}},
}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    return make_services(tmp_path_factory.mktemp("services"))


@pytest.fixture(scope="module")
def found(services: dict[str, Service]) -> list[Member]:
    return list(find_members(services))


def test_one_thing_is_said_of_every_member_and_nothing_of_what_is_not_there(found: list[Member]) -> None:
    for member in found:
        own = member.structure in fates(member.service)
        assert len(member.said) in ((0, 1) if own else (1,)), f"{member.operation} {member.steps}: {member.said}"
    said = {
        (service, name, member) for service in CODE for name, listed in fates(service).items() for member, _ in listed
    }
    assert said - {(m.service, section, m.name) for m in found for section, _ in m.said} == set()


@pytest.mark.parametrize("service", MODULES)
def test_something_is_said_of_what_ministack_would_drop(service: str) -> None:
    dropped, said = set(forgotten(service)), fates(service)
    named = {(op, name) for op, name in dropped if name in section(service, op)}
    assert dropped - named == set()
    model = service_model(MODELS.get(service, service))
    shapes = {op: model.operation_model(op).input_shape for op in model.operation_names}
    there = {(op, name) for op, shape in shapes.items() if shape for name in shape.members}
    listed = {(pattern, name) for pattern, each in said.items() if pattern not in model.shape_names for name, _ in each}
    assert {(p, name) for p, name in listed if not any(fnmatchcase(op, p) and name == n for op, n in there)} == set()


def test_something_is_said_of_what_stacks_would_drop() -> None:
    dropped = set(unread())
    said = {(kind, name) for kind, listed in fates("templates").items() for name, _ in listed}
    assert dropped - said == set()
    handled = set(provisioners._RESOURCE_HANDLERS)
    assert {kind for kind, _ in said} <= handled


def test_the_page_says_what_the_tables_say(tmp_path: Path) -> None:
    page = Path(__file__).parents[4] / "docs" / "local-aws-members.md"
    assert page.read_text() == make_page(tmp_path), "make members-page"


def test_code_reads_what_acts(found: list[Member]) -> None:
    for member in found:
        serialised = member.shape.serialization
        if member.is_("acts") and (member.service != RUNTIME or serialised.get("location") == "header"):
            names = {member.name, member.name.removesuffix("s"), serialised.get("name", "").lower()}
            [(section, _)] = member.said
            assert names & constants(member.service, section), f"{section}.{member.name}"


def test_describe_gives_back_what_is_recorded(services: dict[str, Service], found: list[Member]) -> None:
    call = services["sagemaker"].call
    recorded = [member for member in found if member.is_("recorded") and len(member.steps) == 1]
    for operation in sorted({m.operation for m in recorded if m.operation.startswith("Create")}, reverse=True):
        made = [(m, request_with(m)) for m in recorded if m.operation == operation]
        request = {name: value for _, each in made for name, value in each.items()} | GIVEN.get(operation, {})
        kind = operation.removeprefix("Create")
        answer = call(operation, request, CALLER)
        named = {f"{kind}Name": request.get(f"{kind}Name", answer[f"{kind}Arn"])}
        described = call(f"Describe{kind}", named, CALLER)
        assert {m.name: described.get(m.name) for m, _ in made} == {m.name: request[m.name] for m, _ in made}
    models = {
        member: service_model("sagemaker").operation_model(f"Describe{member.operation[6:]}") for member in recorded
    }
    assert [member for member, model in models.items() if member.name not in model.output_shape.members] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.member)
def test_lists_are_sorted_by_all_that_can_be_asked_for(tmp_path: Path, kind: Kind) -> None:
    resources = Resources(Store(tmp_path), kind)
    both = [resources.create(CALLER, {kind.name_member: n}, **{kind.status_member: n})[kind.arn_member] for n in "ab"]
    for by in service_model("sagemaker").operation_model(f"List{kind.member}s").input_shape.members["SortBy"].enum:
        for order, expected in (("Ascending", both), ("Descending", both[::-1])):
            [items] = resources.list_page({"SortBy": by, "SortOrder": order}, CALLER).values()
            assert [item[kind.arn_member] for item in items] == expected, by


def test_what_is_not_here_is_refused_by_its_name(services: dict[str, Service], found: list[Member]) -> None:
    refused = [member for member in found if member.is_("refused")]
    assert len(refused) > 100
    for member in refused:
        request, service = request_with(member), services.get(member.service)
        if service is None:
            shape = service_model(member.service).operation_model(member.operation).input_shape
            message = " ".join(refused_members(member.service, member.operation, request, shape))
        else:
            message = refusal(functools.partial(service.call, member.operation, request, CALLER)).message
        assert f"The local AWS has no {'.'.join(member.steps)}" in message, f"{member}: {message}"
