"""Python values become JSON values, or are refused with their path."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import numbers
import types
from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Annotated, Any, ClassVar
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    RootModel,
    SecretStr,
    TypeAdapter,
    computed_field,
    field_serializer,
    model_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from airflow_workflow_events.errors import EventValidationError
from airflow_workflow_events.events.json_values import (
    MAX_DEPTH,
    MAX_INTEGER_BITS,
    to_json_object,
    to_json_value,
)

TOKYO = dt.timezone(dt.timedelta(hours=9))
UUID_TEXT = "0c1f0c39-6f53-5b8f-9c1a-2f5c4a3f9d11"


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Kind(StrEnum):
    ORDER = "order"


class Row(BaseModel):
    price: Decimal
    when: dt.date


@dataclasses.dataclass(slots=True)
class Line:
    number: int
    row: Row


class Loud(str):
    """A string that prints as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class NumpyLikeInteger:
    """Like numpy's integers: none of Python's, but registered as a number."""

    def __int__(self) -> int:
        return 7


class NumpyLikeFloat:
    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


numbers.Integral.register(NumpyLikeInteger)
numbers.Real.register(NumpyLikeFloat)

Point = namedtuple("Point", "x y")  # noqa: PYI024 - what users have


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**53,
        1.5,
        -0.0,
        "",
        "text",
        "ünï 🎉",
        [],
        {},
        [1, "a", None],
        {"a": {"b": [1]}},
    ],
)
def test_plain_json_values_stay_as_they_are(value: object) -> None:
    converted = to_json_value(value, "x")

    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2026, 11, 23, 2, 44, 35, 216843, dt.UTC), "2026-11-23T02:44:35.216843Z"),
        (dt.datetime(2026, 11, 23, 2, 44, tzinfo=TOKYO), "2026-11-23T02:44:00+09:00"),
        (dt.datetime.fromisoformat("2026-11-23"), "2026-11-23T00:00:00"),
        (dt.date(2026, 11, 23), "2026-11-23"),
        (dt.time(2, 44), "02:44:00"),
        (dt.timedelta(days=1, seconds=3, milliseconds=500), "P1DT3.5S"),
        (dt.timedelta(seconds=10), "P0DT10S"),
        (dt.timedelta(seconds=-90), "-P0DT90S"),
        (dt.timedelta(0), "P0DT0S"),
        (Decimal("12.340"), "12.340"),
        (UUID(UUID_TEXT), UUID_TEXT),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Kind.ORDER, "order"),
        (NumpyLikeInteger(), 7),
        (NumpyLikeFloat(0.5), 0.5),
        (Fraction(1, 4), 0.25),
        (Loud("quiet"), "quiet"),
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        (deque([1, 2]), [1, 2]),
        (UserList([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({"a": 1}.keys(), ["a"]),
        (UserDict({"a": 1}), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (Row(price=Decimal("9.90"), when=dt.date(2026, 1, 2)), {"price": "9.90", "when": "2026-01-02"}),
        (
            Line(1, Row(price=Decimal(1), when=dt.date(2026, 1, 2))),
            {"number": 1, "row": {"price": "1", "when": "2026-01-02"}},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_richer_values_become_their_json_form(value: object, expected: object) -> None:
    converted = to_json_value(value, "x")

    assert converted == expected
    assert json.loads(json.dumps(converted, allow_nan=False)) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (1, "1"),
        (Level.HIGH, "3"),
        (Colour.RED, "red"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (UUID(UUID_TEXT), UUID_TEXT),
        (Decimal("1.0"), "1.0"),
        (Loud("quiet"), "quiet"),
        ("ü", "ü"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_keys_with_one_obvious_text_become_strings(key: object, expected: str) -> None:
    assert to_json_value({key: 1}, "x") == {expected: 1}


def test_equal_sets_of_mixed_types_give_equal_lists() -> None:
    assert to_json_value({"a", 1, None, (2,)}, "x") == to_json_value({(2,), None, "a", 1}, "x")


def test_the_result_shares_nothing_mutable_with_the_original() -> None:
    original: dict[str, Any] = {"rows": [{"price": 1}]}

    converted = to_json_value(original, "x")
    original["rows"][0]["price"] = 2
    original["rows"].append(3)

    assert converted == {"rows": [{"price": 1}]}


def test_an_object_that_appears_twice_side_by_side_is_no_cycle() -> None:
    row = {"price": 1}

    assert to_json_value({"a": row, "b": [row, row]}, "x") == {"a": row, "b": [row, row]}


class Opaque:
    secret: ClassVar[str] = "canary"

    def __repr__(self) -> str:
        return self.secret


def circular() -> dict[str, Any]:
    rows: list[Any] = []
    data: dict[str, Any] = {"rows": rows}
    rows.append(data)
    return data


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(depth - 1):
        data = {"a": data}
    return data


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"a": {"b": [1, 2, 3, object()]}}, "payload.data.a.b[3]", "of type object"),
        ({"a": Opaque()}, "payload.data.a", "Opaque, which JSON cannot carry"),
        ({"a": Opaque}, "payload.data.a", "of type type"),
        ({"a": SecretStr("canary")}, "payload.data.a", "SecretStr"),
        ({"a": lambda: 1}, "payload.data.a", "function"),
        ({"a": (number for number in [1])}, "payload.data.a", "generator"),
        ({"a": 1j}, "payload.data.a", "complex"),
        (circular(), "payload.data.rows[0]", "break the cycle"),
        ({"a": math.nan}, "payload.data.a", "NaN or infinite"),
        ({"a": [math.inf]}, "payload.data.a[0]", "NaN or infinite"),
        ({"a": -math.inf}, "payload.data.a", "NaN or infinite"),
        ({"a": Decimal("NaN")}, "payload.data.a", "NaN or infinite"),
        ({"a": Decimal("-Infinity")}, "payload.data.a", "NaN or infinite"),
        ({"a": NumpyLikeFloat(math.nan)}, "payload.data.a", "NaN or infinite"),
        ({"a": Fraction(10**400)}, "payload.data.a", "too large"),
        ({"a": b"canary"}, "payload.data.a", "is bytes"),
        ({"a": bytearray(b"canary")}, "payload.data.a", "is bytes"),
        ({"a": memoryview(b"canary")}, "payload.data.a", "is bytes"),
        ({"a": "\ud800canary"}, "payload.data.a", "lone surrogate"),
        ({"a": {"\udfff": 1}}, "payload.data.a", "lone surrogate"),
        ({"a": Loud("\ud800")}, "payload.data.a", "lone surrogate"),
        ({"a": 2**MAX_INTEGER_BITS}, "payload.data.a", "more than 1024 bits"),
        ({"a": -(2**MAX_INTEGER_BITS)}, "payload.data.a", "more than 1024 bits"),
        ({"a": {(1, 2): 3}}, "payload.data.a", "has a key that is"),
        ({"a": {None: 3}}, "payload.data.a", "has a key that is"),
        ({"a": {True: 3}}, "payload.data.a", "has a bool as a key"),
        ({"a": {1.5: 3}}, "payload.data.a", "has a key that is"),
        ({"a": {1: "x", "1": "y"}}, "payload.data.a", "has the key '1' twice"),
        ({1: {"a": b""}}, "payload.data.1.a", "is bytes"),
        ({"a": {b""}}, "payload.data.a[0]", "is bytes"),
        ({"a": Line(1, b"canary")}, "payload.data.a.row", "is bytes"),  # type: ignore[arg-type]
        (nested(MAX_DEPTH + 1), "payload.data" + ".a" * MAX_DEPTH, "nested deeper than 100"),
    ],
)
def test_a_value_json_cannot_carry_is_refused_with_its_path_and_without_the_value(
    value: object, path: str, reason: str
) -> None:
    with pytest.raises(EventValidationError) as caught:
        to_json_object(value, "payload.data")

    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"{path}: ")
    assert "canary" not in str(caught.value)


def test_the_deepest_nesting_and_the_largest_integer_that_are_allowed_are_accepted() -> None:
    value = nested(MAX_DEPTH) | {"number": 2**MAX_INTEGER_BITS - 1}

    assert to_json_object(value, "payload.data") == value


@pytest.mark.parametrize("value", [None, 1, "text", [1], {1, 2}, b""], ids=repr)
def test_what_is_no_mapping_is_refused_as_an_object(value: object) -> None:
    with pytest.raises(EventValidationError, match=r"^payload\.data: "):
        to_json_object(value, "payload.data")


@pytest.mark.parametrize("value", [{"a": 1}, UserDict(a=1), Row(price=Decimal(1), when=dt.date(2026, 1, 2))])
def test_mappings_and_models_are_objects(value: object) -> None:
    assert isinstance(to_json_object(value, "payload.data"), dict)


class Account(BaseModel):
    """A model that says in every way how it is serialised."""

    model_config = ConfigDict(serialize_by_alias=True)

    number: int = Field(serialization_alias="accountNumber")
    password: str = Field("canary", exclude=True)
    token: SecretStr = SecretStr("canary")
    site: HttpUrl = HttpUrl("https://example.org/a")
    ratio: Decimal = Decimal("1.50")
    waited: dt.timedelta = dt.timedelta(seconds=90)
    raw: bytes = b"text"
    tags: Annotated[set[str], PlainSerializer(sorted)] = {"b", "a"}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.number

    @field_serializer("ratio")
    def as_percent(self, value: Decimal) -> str:
        return f"{value * 100:.0f}%"


class Accounts(RootModel[list[Account]]):
    """A model that is a list."""


class Nobody(BaseModel):
    """A model with a serializer of its own for the whole."""

    name: str = "canary"

    @model_serializer
    def anonymous(self) -> dict[str, str]:
        return {"name": "anonymous"}


@dataclasses.dataclass
class Report:
    """A dataclass of the standard library around models."""

    accounts: list[Account]
    nobody: Nobody = dataclasses.field(default_factory=Nobody, repr=False)


@pydantic_dataclass
class Sheet:
    """A dataclass of pydantic's."""

    site: HttpUrl
    hidden: str = Field("canary", exclude=True)
    account: Account = Field(default_factory=lambda: Account(number=3))


@pytest.mark.parametrize(
    "model",
    [Account(number=1), Accounts([Account(number=1), Account(number=2)]), Nobody()],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize(
    "place",
    [
        lambda model: {"a": model},
        lambda model: {"a": [1, (model,)]},
        lambda model: {"a": {"b": {"c": model}}},
        lambda model: OrderedDict(a=deque([model])),
    ],
)
def test_a_model_is_what_its_own_dump_gives_wherever_it_stands(place: Any, model: BaseModel) -> None:
    converted = to_json_value(place(model), "payload.data")

    assert converted == json.loads(json.dumps(place(model.model_dump(mode="json")), default=list))
    assert "canary" not in repr(converted)


def test_models_in_dataclasses_are_what_their_own_dumps_give() -> None:
    report = Report([Account(number=1)])
    sheet = Sheet(site=HttpUrl("https://example.org"), hidden="canary")

    assert to_json_object(report, "payload.data") == {
        "accounts": [Account(number=1).model_dump(mode="json")],
        "nobody": {"name": "anonymous"},
    }
    assert to_json_object(sheet, "payload.data") == TypeAdapter(Sheet).dump_python(sheet, mode="json")
    assert "canary" not in repr(to_json_object(sheet, "payload.data"))


def test_an_address_of_pydantics_is_text() -> None:
    assert to_json_value([HttpUrl("https://example.org/a")], "payload.data") == ["https://example.org/a"]


class Anything(BaseModel):
    """A model that holds whatever it is given."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: Any = None
    secret: Any = Field(None, exclude=True)


class Broken(BaseModel):
    """A model whose serializer fails."""

    name: str = "canary"

    @field_serializer("name")
    def fail(self, value: str) -> str:
        raise RuntimeError(value)


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (Anything(inner=object(), secret=object()), "payload.data.inner", "an object of type object"),
        (Anything(inner={"a": [Anything(inner=b"\xff")]}), "payload.data.inner.a[0].inner", "is bytes"),
        (Anything(inner={"a": "\ud800"}), "payload.data.inner.a", "lone surrogate"),
        ({"a": [Broken()]}, "payload.data.a[0]", "Broken, whose serialisation failed with"),
        (Accounts([]), "payload.data", "must be a mapping"),
    ],
)
def test_what_a_model_cannot_serialise_is_named_with_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(EventValidationError, match=reason) as caught:
        to_json_object(value, "payload.data")

    assert caught.value.path == path
    assert "canary" not in str(caught.value)


def test_a_model_that_contains_itself_is_refused() -> None:
    value = Anything()
    value.inner = [value]

    with pytest.raises(EventValidationError, match="refers back") as caught:
        to_json_value(value, "payload.data")

    assert caught.value.path == "payload.data.inner[0]"
