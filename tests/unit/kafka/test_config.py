"""The guide's parameters become a librdkafka configuration that keeps the producer's promises."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_workflow_events.errors import ConfigurationError
from airflow_workflow_events.kafka.config import SECRET_OPTIONS, check_topic, named_options, without_secrets
from airflow_workflow_events.kafka.producer_config import producer_config

GUIDE: dict[str, Any] = {
    "bootstrap_servers": "localhost:9092",
    "acks": "all",
    "retries": 3,
    "max_in_flight_requests_per_connection": 1,
    "request_timeout_ms": 30_000,
    "delivery_timeout_ms": 120_000,
    "enable_idempotence": None,
    "options": {},
    "config": None,
}
LOGIN = {"sasl.username": "u", "sasl.password": "p"}


def built(**changes: Any) -> dict[str, Any]:
    return producer_config(**(GUIDE | changes))


def test_the_guides_defaults_become_librdkafkas_options() -> None:
    assert built() == {
        "bootstrap.servers": "localhost:9092",
        "acks": "all",
        "retries": 3,
        "max.in.flight.requests.per.connection": 1,
        "request.timeout.ms": 30_000,
        "message.timeout.ms": 120_000,
        "partitioner": "murmur2_random",
        "linger.ms": 0,
        "connections.max.idle.ms": 180_000,
        "topic.metadata.refresh.interval.ms": 180_000,
        "enable.idempotence": True,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a:1", "a:1"),
        (" a:1 , b:2,", "a:1,b:2"),
        (["a:1", " b:2 "], "a:1,b:2"),
        (("a:1",), "a:1"),
    ],
)
def test_servers_may_be_text_or_an_iterable(given: Any, expected: str) -> None:
    assert built(bootstrap_servers=given)["bootstrap.servers"] == expected


@pytest.mark.parametrize("servers", ["", " , ", [], [""]])
def test_no_servers_at_all_are_refused(servers: Any) -> None:
    with pytest.raises(ConfigurationError, match="bootstrap_servers is empty"):
        built(bootstrap_servers=servers)


@pytest.mark.parametrize(
    ("acks", "expected"), [("all", "all"), ("-1", "all"), (-1, "all"), ("1", "1"), (0, "0")]
)
def test_acks_may_be_text_or_a_number(acks: str | int, expected: str) -> None:
    assert built(acks=acks)["acks"] == expected


@pytest.mark.parametrize("acks", ["two", 2, "", True, None])
def test_other_acks_are_refused_with_what_would_be_right(acks: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'acks is .*: use "0", "1" or "all"'):
        built(acks=acks)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("retries", 0),
        ("max_in_flight_requests_per_connection", 1),
        ("request_timeout_ms", 1),
        ("delivery_timeout_ms", 1),
    ],
)
def test_a_number_that_is_too_small_or_not_whole_is_refused_by_its_name(name: str, least: int) -> None:
    assert built(**{name: least})
    for wrong in (least - 1, 1.5, "3", True, None):
        with pytest.raises(ConfigurationError, match=f"{name} is .*whole number of {least} or more"):
            built(**{name: wrong})


def test_a_request_never_outlives_its_event() -> None:
    assert built(delivery_timeout_ms=500)["request.timeout.ms"] == 500


@pytest.mark.parametrize(
    ("changes", "on"),
    [
        ({}, True),
        ({"acks": "1"}, False),
        ({"acks": "0"}, False),
        ({"retries": 0}, False),
        ({"max_in_flight_requests_per_connection": 5}, True),
        ({"max_in_flight_requests_per_connection": 6}, False),
        ({"enable_idempotence": False}, False),
        ({"enable_idempotence": True}, True),
        ({"config": {"acks": "1"}}, False),
        ({"config": {"request.required.acks": "1"}}, False),
        ({"config": {"max.in.flight": "6"}}, False),
        ({"config": {"enable.idempotence": "false"}}, False),
        ({"acks": "1", "config": {"enable.idempotence": False}}, False),
        ({"acks": "1", "enable_idempotence": True, "config": {"enable.idempotence": False}}, False),
    ],
)
def test_idempotence_is_on_wherever_the_settings_allow_it(changes: dict[str, Any], on: bool) -> None:
    assert built(**changes)["enable.idempotence"] is on


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"acks": "1"}, "acks=1"),
        ({"acks": "0"}, "acks=0"),
        ({"retries": 0}, "retries=0"),
        ({"max_in_flight_requests_per_connection": 6}, "max_in_flight_requests_per_connection=6"),
    ],
)
@pytest.mark.parametrize("how", [{"enable_idempotence": True}, {"config": {"enable.idempotence": "True"}}])
def test_idempotence_asked_for_with_settings_that_forbid_it_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str, how: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=f"idempotence is not possible with {reason}"):
        built(**changes, **how)


def test_the_users_own_options_win_over_everything_by_any_of_their_names() -> None:
    config = {
        "linger.ms": 20,
        "message.send.max.retries": 9,
        "delivery.timeout.ms": 1_000,
        "partitioner": "consistent",
        "metadata.broker.list": "own:9092",
        "client.id": "own",
        "compression.codec": "zstd",
    }

    result = built(config=config, options={"client.id": "parameter"})

    assert (
        result.items()
        >= {
            "linger.ms": 20,
            "retries": 9,
            "message.timeout.ms": 1_000,
            "partitioner": "consistent",
            "bootstrap.servers": "own:9092",
            "client.id": "own",
            "compression.type": "zstd",
        }.items()
    )
    assert not result.keys() & {"message.send.max.retries", "delivery.timeout.ms", "metadata.broker.list"}


def test_an_option_given_twice_by_two_names_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"linger\.ms twice"):
        built(config={"linger.ms": 1, "queue.buffering.max.ms": 2})


def test_options_that_are_none_are_dropped() -> None:
    result = built(options=named_options(client_id=None), config={"acks": None, "sasl.password": None})

    assert result == built()


def test_the_callers_mappings_are_not_changed() -> None:
    options, config = {"client.id": "a"}, {"queue.buffering.max.ms": 2}

    built(options=options, config=config)

    assert (options, config) == ({"client.id": "a"}, {"queue.buffering.max.ms": 2})


@pytest.mark.parametrize(
    "option",
    ["retries", "max.in.flight.requests.per.connection", "request.timeout.ms", "message.timeout.ms"],
)
@pytest.mark.parametrize("value", ["many", "1e3", "5.5", 5.5, float("inf"), True], ids=repr)
def test_an_option_of_ones_own_that_is_no_number_is_refused_by_its_name(option: str, value: Any) -> None:
    # librdkafka takes the digits it finds: "1e3" would be a timeout of 1 ms.
    with pytest.raises(ConfigurationError, match=f"{option} is {value!r}: use a whole number"):
        built(config={option: value})


@pytest.mark.parametrize("value", ["5000", " 5000", 5000.0])
def test_a_number_of_ones_own_may_be_text(value: Any) -> None:
    assert built(config={"delivery.timeout.ms": value})["message.timeout.ms"] == 5000


@pytest.mark.parametrize("config", [[("acks", 1)], "acks=1", 7, {1: 2}], ids=str)
def test_a_config_that_is_no_mapping_of_names_is_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="config must map librdkafka's names to values"):
        built(config=config)


@pytest.mark.parametrize(
    "value", [b"canary", ["canary"], {"a": "canary"}, object()], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("how", ["config", "options"])
def test_a_value_that_would_reach_librdkafka_as_another_is_refused_without_showing_it(
    value: Any, how: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"sasl\.password is of type") as caught:
        built(**{how: {"sasl.password": value}})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"security.protocol": "SSL"},
        {"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN", **LOGIN},
        {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512", **LOGIN},
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"},
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"},
    ],
)
def test_a_complete_security_configuration_is_accepted_by_parameter_and_by_config(
    options: dict[str, Any],
) -> None:
    assert built(options=options) == built(config=options)
    assert built(options=options).items() >= options.items()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"security.protocol": "TLS"}, "use one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"sasl.mechanism": "PLAIN", **LOGIN}, "security_protocol is PLAINTEXT, which would ignore it"),
        (LOGIN, "security_protocol is PLAINTEXT, which would ignore it"),
        ({"security.protocol": "SSL", **LOGIN}, "security_protocol is SSL, which would ignore it"),
        ({"security.protocol": "SASL_SSL", **LOGIN}, "no sasl_mechanism is given"),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"},
            "needs sasl.username and sasl.password",
        ),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "u"},
            "needs sasl.password",
        ),
    ],
)
def test_a_security_configuration_with_a_hole_in_it_is_refused_with_the_reason(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        built(options=options)


@pytest.mark.parametrize("topic", ["a", "workflow-events", "A.b_c-1", "x" * 249, "..."])
def test_a_legal_topic_is_returned(topic: str) -> None:
    assert check_topic(topic) == topic


@pytest.mark.parametrize("topic", ["", ".", "..", "x" * 250, "with space", "a/b", "ü", "a\n", None, 3, b"a"])
def test_an_illegal_topic_is_refused_with_the_rule(topic: Any) -> None:
    with pytest.raises(ConfigurationError, match="not a legal Kafka topic name: use 1 to 249"):
        check_topic(topic)


@pytest.mark.parametrize("option", sorted(SECRET_OPTIONS))
def test_a_secret_is_masked_wherever_it_stands(option: str) -> None:
    assert without_secrets("it is canary, canary!", {option: "canary"}) == "it is ***, ***!"


@pytest.mark.parametrize("secret", [b"12345678", 12345678])
def test_a_secret_that_is_no_text_is_masked_as_well(secret: Any) -> None:
    assert without_secrets("it is 12345678", {"sasl.password": secret}) == "it is ***"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("y", "the registry says: y", "the registry says: ***"),
        ("user", "users: user, user2, (user)", "users: ***, user2, (***)"),
        ("secret", "mysecrets", "my***s"),
    ],
)
def test_a_short_secret_is_masked_only_where_it_stands_by_itself(secret: str, text: str, shown: str) -> None:
    assert without_secrets(text, {"sasl.password": secret}) == shown


def test_a_secret_that_holds_another_is_masked_as_a_whole() -> None:
    config = {"sasl.password": "canary", "ssl.key.password": "canary-of-the-mine"}

    assert without_secrets("canary-of-the-mine and canary", config) == "*** and ***"


def test_a_secret_under_librdkafkas_other_name_for_it_is_kept_under_the_one_that_is_masked() -> None:
    config = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.client.credentials.client.secret": "canary",
    }

    assert "canary" not in without_secrets(str(built(config=config)), built(config=config))


def test_what_is_no_secret_is_left_in_the_text() -> None:
    assert without_secrets("user u failed", {"sasl.username": "u", "sasl.password": ""}) == "user u failed"


@pytest.mark.parametrize("servers", [None, [1], 7])
def test_servers_that_are_no_text_are_refused_with_what_would_be_right(servers: Any) -> None:
    with pytest.raises(ConfigurationError, match="bootstrap_servers must be host:port addresses"):
        built(bootstrap_servers=servers)


def test_a_login_in_an_address_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="holds a login") as caught:
        built(bootstrap_servers="SASL_SSL://u:hunter2@kafka:9092")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [True, "true", "1", "t"])
def test_reports_of_errors_alone_are_refused_as_nothing_could_be_confirmed(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="no event could ever be confirmed"):
        built(config={"delivery.report.only.error": value})


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("t", True), (1, True), ("false", False), ("0", False)]
)
def test_idempotence_is_read_as_librdkafka_reads_it(value: Any, on: bool) -> None:
    assert built(config={"enable.idempotence": value})["enable.idempotence"] is on


@pytest.mark.parametrize("value", ["yes", "on", "maybe", "", 2, 1.0], ids=repr)
def test_a_boolean_that_librdkafka_does_not_know_is_refused(value: Any) -> None:
    for option in ("enable.idempotence", "delivery.report.only.error"):
        with pytest.raises(ConfigurationError, match=f"{option} is {value!r}: use true or false"):
            built(config={option: value})


def test_idempotence_left_open_in_ones_own_options_is_the_parameters() -> None:
    assert built(config={"enable.idempotence": None}) == built()


@pytest.mark.parametrize(
    "options",
    [
        {"ssl.ca.location": "/ca.pem"},
        {"ssl.certificate.location": "/c.pem", "ssl.key.location": "/k.pem"},
        {"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.secret": "s"},
        {"oauth_cb": lambda _: ("t", 0.0)},
    ],
    ids=["ca", "certificate", "oidc", "callback"],
)
def test_security_that_the_protocol_would_ignore_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="which would ignore"):
        built(options=options)
