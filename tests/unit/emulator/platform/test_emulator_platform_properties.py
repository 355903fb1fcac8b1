"""CloudFormation's loosely typed properties as strictly typed requests."""

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from emulator.ministack.cloudformation.properties import coerce

SAGEMAKER = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def shape(operation):
    return SAGEMAKER.operation_model(operation).input_shape


def variant(**members):
    return {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "v", **members}]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"InitialInstanceCount": "2"}, {"InitialInstanceCount": 2}),
        ({"InitialVariantWeight": "0.5"}, {"InitialVariantWeight": 0.5}),
        ({"InitialVariantWeight": 1}, {"InitialVariantWeight": 1.0}),
        ({"EnableSSMAccess": "true"}, {"EnableSSMAccess": True}),
        ({"EnableSSMAccess": "False"}, {"EnableSSMAccess": False}),
        ({"EnableSSMAccess": False}, {"EnableSSMAccess": False}),
        ({"ModelName": 5}, {"ModelName": "5"}),
        ({"ModelName": None}, {}),
    ],
)
def test_scalars_get_the_type_of_the_api(given, wanted):
    assert coerce(variant(**given), shape("CreateEndpointConfig")) == variant(**wanted)


def test_values_of_a_map_become_strings():
    given = {"ModelName": "m", "PrimaryContainer": {"Environment": {"WORKERS": 2, "DEBUG": True}}}
    made = coerce(given, shape("CreateModel"))
    assert made["PrimaryContainer"]["Environment"] == {"WORKERS": "2", "DEBUG": "true"}


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"Colour": "red"}, r"#: extraneous key \[Colour\] is not permitted"),
        (variant(Colour="red"), r"#/ProductionVariants/0: extraneous key \[Colour\] is not permitted"),
        (variant(InitialInstanceCount="two"), r"#/ProductionVariants/0/InitialInstanceCount: expected type: integer"),
        (variant(InitialInstanceCount="1.5"), r"InitialInstanceCount: expected type: integer, found: '1.5'"),
        (variant(EnableSSMAccess="yes"), r"EnableSSMAccess: expected type: boolean, found: 'yes'"),
        (variant(ModelName=["a"]), r"ModelName: expected type: string"),
        ({"ProductionVariants": {"VariantName": "v"}}, r"#/ProductionVariants: expected type: JSONArray"),
        ({"ProductionVariants": ["v"]}, r"#/ProductionVariants/0: expected type: JSONObject"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(properties, message):
    with pytest.raises(ValueError, match=message):
        coerce(properties, shape("CreateEndpointConfig"))
