"""CloudFormation's loosely typed properties as strictly typed requests."""

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from emulator.ministack.cloudformation.properties import coerce

SAGEMAKER = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def coerced(properties, operation="CreateEndpointConfig"):
    return coerce(properties, SAGEMAKER.operation_model(operation).input_shape)


def variant(**members):
    return {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "v", **members}]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"InitialInstanceCount": "2"}, {"InitialInstanceCount": 2}),
        ({"InitialVariantWeight": "0.5"}, {"InitialVariantWeight": 0.5}),
        ({"EnableSSMAccess": "False"}, {"EnableSSMAccess": False}),
        ({"EnableSSMAccess": True}, {"EnableSSMAccess": True}),
        ({"ModelName": 5}, {"ModelName": "5"}),
        ({"ModelName": None}, {}),
    ],
)
def test_scalars_get_the_type_of_the_api(given, wanted):
    assert coerced(variant(**given)) == variant(**wanted)


def test_values_of_a_map_become_strings():
    given = {"ModelName": "m", "PrimaryContainer": {"Environment": {"WORKERS": 2, "DEBUG": True}}}
    assert coerced(given, "CreateModel")["PrimaryContainer"]["Environment"] == {"WORKERS": "2", "DEBUG": "true"}


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"Colour": "red"}, r"#: extraneous key \[Colour\] is not permitted"),
        (variant(InitialInstanceCount="1.5"), r"0/InitialInstanceCount: expected type: integer, found: '1.5'"),
        (variant(EnableSSMAccess="yes"), r"EnableSSMAccess: expected type: boolean, found: 'yes'"),
        (variant(ModelName=["a"]), r"ModelName: expected type: string"),
        ({"ProductionVariants": {"VariantName": "v"}}, r"#/ProductionVariants: expected type: JSONArray"),
        ({"ProductionVariants": ["v"]}, r"#/ProductionVariants/0: expected type: JSONObject"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(properties, message):
    with pytest.raises(ValueError, match=message):
        coerced(properties)
