"""What the templates promise of single resources: the table promises.yaml."""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import jmespath
import pytest
import yaml
from templates import Resource, SynthesisedStage, text

PROMISES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("promises.yaml").read_text("utf-8"))


def flattened(value: Any) -> Any:
    """Flatten the functions of CloudFormation that give a text."""
    match value:
        case {"Ref": _} | {"Fn::GetAtt": _} | {"Fn::ImportValue": _} | {"Fn::Join": _}:
            return text(value)
        case dict():
            return {name: flattened(each) for name, each in value.items()}
        case list():
            return [flattened(each) for each in value]
    return value


def read(resource: Resource, stage: SynthesisedStage) -> dict[str, Any]:
    """What a resource has: its properties, and what becomes of it with its stack."""
    found = resource["Properties"] | {"DeletionPolicy": resource.get("DeletionPolicy")}
    name = f"{stage.settings.project}-{stage.settings.stage}-"
    read: dict[str, Any] = json.loads(json.dumps(flattened(found)).replace(name, "kennel-STAGE-"))
    return read


@pytest.mark.parametrize(
    ("stack", "promise", "where"),
    [
        pytest.param(stack, promise, where, id=f"{where}: {name}")
        for stack, promises in PROMISES.items()
        for name, promise in promises.items()
        for where in promise.get("in", ("local", "dev", "prod"))
    ],
)
def test_the_template_has_what_is_promised(stages, request, stack, promise, where):
    stage = stages.get(where) or request.getfixturevalue(where)
    of_type, _, logical_id = promise["of"].partition(" ")
    resources = stage.template(stack)["Resources"].items()
    found = {name: resource for name, resource in resources if resource["Type"] == of_type}
    assert len(found) == promise.get("count", len(found) or 1)
    named = [read(each, stage) for name, each in found.items() if name.startswith(logical_id)]
    assert bool(named) == bool(found)
    for path, value in promise.get("has", {}).items():
        of_settings = isinstance(value, str) and value.startswith("=")
        expected = attrgetter(value[1:])(stage.settings) if of_settings else value
        assert [jmespath.search(path, each) for each in named] == [expected] * len(named), path
