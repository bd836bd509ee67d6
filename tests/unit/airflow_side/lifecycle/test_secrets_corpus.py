"""Cases of what must be masked and what must not, and what holds for all of them.

The files have placeholders where secrets stand: ``@S@`` is a random one, ``@A20@`` twenty letters and digits,
``@U16@`` of capitals, ``@H32@`` of hexadecimal digits, ``@B40@`` and ``@B64@`` of base64.
"""

from __future__ import annotations

import json
import random
import re
import string
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_workflow_events.lifecycle.redaction import masked, without_secrets
from airflow_workflow_events.lifecycle.secret_names import secret_names
from tests.events import make_event
from tests.unit.airflow_side.contexts import dag_context
from tests.unit.airflow_side.lifecycle.test_translate import event_of

FOLDER = Path(__file__).parent / "secrets"
MUST = json.loads((FOLDER / "must_mask.json").read_text())
MUST_NOT = json.loads((FOLDER / "must_not_mask.json").read_text())
ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "U": string.ascii_uppercase + string.digits,
    "H": "0123456789abcdef",
}


def filled(case: str) -> tuple[str, list[str]]:
    """Return a case with secrets in it, and these."""
    chosen: list[str] = []

    def secret(match: re.Match[str]) -> str:
        kind, length = match[1], int(match[2] or 0)
        if kind == "S":
            chosen.append("canary" + "".join(random.choices(ALPHABETS["H"], k=16)))
        elif kind == "B":
            halves = ("".join(random.choices(ALPHABETS["A"], k=length // 2 - n)) for n in (1, 0))
            chosen.append("/".join(halves))
        else:
            chosen.append("".join(random.choices(ALPHABETS[kind], k=length)))
        return chosen[-1]

    return re.sub(r"@([SABUH])(\d*)@", secret, case), chosen


@pytest.mark.parametrize("case", MUST["texts"])
def test_a_text_with_a_secret_is_masked_once_and_for_all(case: str) -> None:
    text, secrets = filled(case)
    found = masked(text)

    assert not any(secret in found for secret in secrets), found
    assert "***" in found
    assert masked(found) == found


@pytest.mark.parametrize("case", MUST["texts"])
def test_a_text_with_a_secret_is_masked_inside_other_text_and_inside_json(case: str) -> None:
    text, secrets = filled(case)

    found = masked(f"the job failed:\n{text}\nsee above")
    nested = masked(json.dumps({"rows": [{"note": text}], "count": 3}))
    assert not any(secret in found for secret in secrets), found
    assert not any(secret in nested for secret in secrets), nested
    assert json.loads(nested)["count"] == 3


@pytest.mark.parametrize("key", MUST["keys"])
def test_a_key_that_tells_of_a_secret_hides_it(key: str) -> None:
    event = make_event(payload={"data": {"x": [{key: "hunter"}], "rows": 3}})

    found = without_secrets(event)
    assert found.payload.data == {"x": [{key: "***"}], "rows": 3}
    assert masked(f"{key}=canary-17, rows=3") == f"{key}=***, rows=3"


@pytest.mark.parametrize("text", MUST_NOT["texts"])
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert masked(text) == text
    event = make_event(payload={"data": {"text": text}})
    assert without_secrets(event) is event


@pytest.mark.parametrize("key", MUST_NOT["keys"])
def test_a_key_that_is_about_something_else_hides_nothing(key: str) -> None:
    event = make_event(payload={"data": {key: "a value", "more": [{key: 17}]}})

    assert without_secrets(event) is event


def test_a_list_of_plain_words_behind_tokens_stays_and_one_with_a_token_does_not() -> None:
    words = {"tokens": ["The", "cat", "##s", "sat", ".", "2026"], "input_tokens": 5}
    event = make_event(payload={"data": words})
    assert without_secrets(event) is event

    event = make_event(payload={"data": {"tokens": ["the", "x7Kq09zzP"]}})
    assert without_secrets(event).payload.data == {"tokens": ["***", "***"]}


def test_the_secret_half_of_an_aws_key_is_found_beside_its_id() -> None:
    _, (identity, secret) = filled("AKIA@U16@ @B40@")
    event = make_event(
        payload={"data": {"id": f"AKIA{identity}", "beside_it": [secret], "commit": "0123456789" * 4}}
    )

    assert without_secrets(event).payload.data == {
        "id": "***",
        "beside_it": ["***"],
        "commit": "0123456789" * 4,
    }


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('{"password": 1234, "rows": 3}', {"password": "***", "rows": 3}),
        ('{"passwords": ["a", {"b": "c"}], "rows": 3}', {"passwords": ["***", {"b": "***"}], "rows": 3}),
        ('{"token_count": 5, "token": "abc"}', {"token_count": 5, "token": "***"}),
        ('{"x": "{\\"password\\": 1234}"}', {"x": '{"password": "***"}'}),
        ('[{"name": "DB_PASSWORD", "value": 1234}]', [{"name": "DB_PASSWORD", "value": "***"}]),
    ],
)
def test_a_text_of_json_stays_json(text: str, same: Any) -> None:
    assert json.loads(masked(text)) == same


def test_an_object_within_other_text_stays_json() -> None:
    text = 'sent {"password": 1234, "tokens": ["x1Y2z3", "b"], "token_count": 5, "note": null} to me'

    found = masked(text)
    assert json.loads(found[found.index("{") : found.rindex("}") + 1]) == {
        "password": "***",
        "tokens": "***",
        "token_count": 5,
        "note": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        "user: me\npassword: hunter2\nrows: 3\n",
        "password: |\n  one\n  two\nrows: 3\n",
        "a:\n  secrets:\n    x: one\n    y: two\n  rows: 3\n",
        "tokens:\n- one1\n- two2\nrows: 3\n",
        "env:\n- name: DB_PASSWORD\n  value: hunter2\n- name: A\n  value: 1\n",
        'user: me\npassword: "hunter2"\nurl: postgres://me:hunter2@db/x\n',
    ],
)
def test_a_document_of_yaml_stays_one_with_the_same_keys(text: str) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else None

    found = masked(text)
    assert shape(yaml.safe_load(found)) == shape(yaml.safe_load(text))
    assert not re.search("hunter2|one|two", found)


def test_names_that_the_options_mask_and_unmask(set_options: Any) -> None:
    set_options(mask_keys="*_iban, Customer*", unmask_keys="session_id,*token_hint*")
    data = {
        "my_iban": "DE1",
        "customerName": "Jane",
        "customer_no": 17,
        "session_id": "s1",
        "a_token_hint_b": "t1",
        "password": "p1",
        "note": "session_id=s1, my_iban=DE1 password=p1",
    }
    found = event_of(dag_context(), data=data).payload.data

    assert {name: found[name] for name in data} == {
        "my_iban": "***",
        "customerName": "***",
        "customer_no": "***",
        "session_id": "s1",
        "a_token_hint_b": "t1",
        "password": "***",
        "note": "session_id=s1, my_iban=*** password=***",
    }


def test_names_that_airflow_is_told_to_be_sensitive_count_unless_they_are_unmasked(
    set_options: Any,
) -> None:
    set_options("core", sensitive_var_conn_names="blutgruppe, token_count")
    secret_names.cache_clear()
    try:
        names = secret_names()
        assert names.hides("meineBlutgruppe")
        assert names.hides("token_count")
        assert not secret_names((), ("token_*",)).hides("token_count")
    finally:
        secret_names.cache_clear()


PIECES = st.sampled_from(
    [
        *(
            "password",
            "token_count",
            "secret",
            "name",
            "value",
            "=",
            ": ",
            '"',
            "'",
            "\\",
            "{",
            "}",
            "[",
            "]",
        ),
        *("\n", "  ", "- ", "|", ",", "://", "@", "--", "Bearer ", "a1b2c3d4", "hunter", "&", "?", "<", ">"),
        *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "AKIAABCDEFGHIJKLMNOP", "***", "5"),
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join))
def test_masking_never_fails_and_settles(text: str) -> None:
    found = masked(text)

    # What a first pass leaves may read differently to the next, as a quote in a secret is gone; it settles.
    assert masked(masked(found)) == masked(found)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | PIECES
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(PIECES | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=15,
)


@given(st.dictionaries(PIECES, JSON, max_size=4))
def test_masking_keeps_json_valid_its_keys_and_the_ids_of_the_event(data: dict[str, Any]) -> None:
    text = json.dumps(data)
    assert json.loads(masked(text)).keys() == data.keys()
    event = make_event(payload={"data": {"data": data}})
    found = without_secrets(event)
    assert (found.event_id, found.workflow_id, found.workflow_run_id) == (
        event.event_id,
        event.workflow_id,
        event.workflow_run_id,
    )
    assert without_secrets(found) is found


@pytest.mark.parametrize(
    "part",
    [
        *(
            "password",
            "password=",
            "password: ",
            'password="',
            "password=['",
            "--token ",
            "token:\n ",
            "a.b-",
        ),
        *("name=password ", "value=x ", 'value="', '{"name":"password",', "- name: password\n  value: x\n"),
        *(
            "://a:b",
            "://a@",
            "x" * 50,
            "\\",
            '\\"',
            "\n",
            "\n ",
            "<password>",
            "<name>",
            "eyJhbGciOi.",
            "AKIA",
        ),
        *(
            "ghp_",
            "xoxb-",
            "password: |\n  x\n",
            "secrets:\n  a: b\n",
            "Authorization: Digest ",
            "cookie: a; ",
        ),
        *(
            "-----BEGIN PRIVATE KEY-----",
            "key ",
            "pass:",
            "code=",
            "?sig=",
            "-u a:",
            "bearer ",
            "tokens: [1,",
        ),
    ],
)
def test_twice_the_text_takes_about_twice_the_time(part: str) -> None:
    def seconds(length: int) -> float:
        text = ("token " + part * (length // len(part) + 1))[:length]
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            masked(text)
            best = min(best, time.thread_time() - started)
        return best

    once, fourfold = seconds(15_000), seconds(60_000)
    # In linear time it is 4, in quadratic 16; what is over in no time says nothing.
    assert fourfold < 9 * once + 0.02
