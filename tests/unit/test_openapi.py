"""The OpenAPI document: valid, complete, the same every time, and saying what the code does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from strongroom.api import openapi
from strongroom.api.dialects import OPERATIONS
from strongroom.api.operations import Access, Dialect, Operation, routes_of
from strongroom.api.replies import envelope, error_body
from strongroom.errors import ERRORS

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.encoded())
SOURCE = Path(openapi.__file__).parents[2]


def described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of every operation in the document."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def resolve(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference stands for, or the value itself."""
    while "$ref" in value:
        found: Any = DOCUMENT
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def conforms(schema: dict[str, Any], value: Any) -> None:
    """Check a value against a schema of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def find(method: str, path: str) -> dict[str, Any]:
    """Return the description of one operation."""
    return DOCUMENT["paths"][path][method.lower()]


def refused_codes(operation: dict[str, Any], status: int) -> set[int]:
    """Return the codes that an operation may answer with a status."""
    schema = resolve(operation["responses"][str(status)])["content"]["application/json"]["schema"]
    return set(schema["allOf"][1]["properties"]["code"]["enum"])


def test_the_document_is_valid() -> None:
    """The document is OpenAPI 3.1, with every schema in it a JSON schema."""
    assert DOCUMENT["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_path_that_is_served_is_described() -> None:
    """The document has exactly what the router knows, under both mounts, and the paths of the server itself."""
    served = {(method, path.decode()) for path, route in routes_of(OPERATIONS).items() for method in route.operations}
    own = {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")}
    assert {(method, path) for method, path, _ in described()} == served | own


def test_every_operation_has_a_name_of_its_own() -> None:
    """Code generators get one identifier for each method of each path."""
    names = Counter(operation["operationId"] for _, _, operation in described())
    assert max(names.values()) == 1
    assert all(name.isidentifier() for name in names)


def test_the_document_is_the_same_in_another_process() -> None:
    """Two servers of one release give the same bytes, whatever the seed of their hashes."""
    program = "import sys; from strongroom.api import openapi; sys.stdout.buffer.write(openapi.encoded())"
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True)
    assert other.stdout == openapi.encoded()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.dialect.value}-{op.method}-{op.name}")
def test_an_operation_says_who_may_call_and_what_is_refused(operation: Operation) -> None:
    """Security, statuses and codes of each operation are those it declares."""
    about = find(operation.method, operation.paths[0])
    signed = {"key": [], "nonce": [], "signature": []}
    allowed = {Access.OPEN: [], Access.PUBLIC: [{}, signed], Access.READ: [signed], Access.CHANGE: [signed]}
    assert about["security"] == allowed[operation.access]
    statuses = {"200", "400", "405", "408", "413", "429", "500", "503"}
    statuses |= set() if operation.access is Access.OPEN else {"401", "403"}
    statuses |= {"422"} if operation.access is Access.CHANGE else set()
    assert set(about["responses"]) == statuses
    assert refused_codes(about, 400) == {-2, *(ERRORS[name].code for name in operation.errors)}
    idempotency = {"$ref": "#/components/parameters/IdempotencyKey"}
    assert (idempotency in about.get("parameters", [])) == (operation.access is Access.CHANGE)


@pytest.mark.parametrize("error", ERRORS.values(), ids=lambda error: error.name)
def test_every_error_has_an_example_that_is_what_clients_get(error: Any) -> None:
    """Each error of the list is shown in both shapes, and what the code answers conforms to both schemas."""
    for dialect, name, shape in ((Dialect.PLAIN, "", "Error"), (Dialect.V3, "v3_", "V3Error")):
        example = DOCUMENT["components"]["examples"][name + error.name]
        assert example["summary"] == error.when
        schema = {"$ref": f"#/components/schemas/{shape}"}
        conforms(schema, example["value"])
        conforms(schema, msgspec.json.decode(error_body(error("a text"), dialect, 1)))
        assert example["value"]["code"] == error.code
    with pytest.raises(jsonschema.ValidationError):
        conforms({"$ref": "#/components/schemas/V3Error"}, DOCUMENT["components"]["examples"][error.name]["value"])


def test_every_error_is_a_possible_answer() -> None:
    """No error of the list is missing from the responses of all operations."""
    shown = {
        name.removeprefix("v3_")
        for _, _, operation in described()
        for response in operation["responses"].values()
        for media in resolve(response).get("content", {}).values()
        for name in media.get("examples", {})
    }
    assert shown == set(ERRORS)


def test_the_examples_of_requests_are_requests() -> None:
    """Each example of a parameter or body conforms to the schema beside it."""
    seen = 0
    for _, _, operation in described():
        for parameter in map(resolve, operation.get("parameters", [])):
            if "example" in parameter:
                conforms(parameter["schema"], parameter["example"])
                seen += 1
        for media in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in media:
                conforms(media["schema"], media["example"])
                seen += 1
    assert seen > len(OPERATIONS)


def test_a_success_says_its_envelope_exactly() -> None:
    """What the envelope's code makes conforms to the schema of an enveloped reply, and a failure does not."""
    operation = next(op for op in OPERATIONS if op.name == "crypto_list")
    response = find(operation.method, operation.paths[0])["responses"]["200"]
    schema = response["content"]["application/json"]["schema"]
    conforms(schema, msgspec.json.decode(envelope([], 1)))
    with pytest.raises(jsonschema.ValidationError):
        conforms(schema, DOCUMENT["components"]["examples"]["invalid_currency"]["value"])


def test_deprecated_operations_say_so() -> None:
    """An operation that answers with a Deprecation header is marked, and names its headers."""
    for operation in OPERATIONS:
        about = find(operation.method, operation.paths[0])
        names = {name for name, _ in operation.headers}
        assert about.get("deprecated", False) == ("Deprecation" in names)
        assert names <= set(about["responses"]["200"]["headers"])


def test_a_list_in_a_query_is_one_json_text() -> None:
    """A parameter that is a list is described as JSON, not as a repeated name, which the server refuses."""
    history = find("GET", "/public-api/wallet/v1/user/walletHistory")
    types = next(parameter for parameter in history["parameters"] if parameter["name"] == "historyTypes")
    assert types["content"]["application/json"]["schema"]["type"] == "array"
