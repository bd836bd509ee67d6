"""A connection brings no code: no callback, library or command that the deployment has not allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

from airflow_workflow_events import ConfigurationError
from airflow_workflow_events.hooks import WorkflowEventHook
from tests.unit.airflow_side.connections import Connections

SERVERS = {"bootstrap.servers": "127.0.0.1:1"}
CALLED: list[object] = []


def token(config: object = None) -> tuple[str, float]:
    """A callback that leaves a trace."""
    CALLED.append(config)
    return "token", 4_000_000_000.0


TOKEN = f"{__name__}.token"
LOGIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}
KERBEROS = {"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}


@pytest.fixture(autouse=True)
def _nothing_was_called() -> Iterator[None]:
    CALLED.clear()
    yield
    assert CALLED == []


@pytest.fixture
def options(connections: Connections) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """``options(extra)``: what the hook makes of such a connection."""
    return lambda extra: WorkflowEventHook(connections.add(extra={**SERVERS, **extra})).client_options()


@pytest.mark.parametrize("place", ["extra", "config"])
@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("oauth_cb", "os.system", r"\[apache_kafka\] callback_allowlist is empty"),
        ("error_cb", "os.system", r"\[apache_kafka\] callback_allowlist is empty"),
        ("stats_cb", TOKEN, r"\[apache_kafka\] callback_allowlist is empty"),
        ("throttle_cb", TOKEN, r"\[apache_kafka\] callback_allowlist is empty"),
        ("log_cb", TOKEN, r"\[apache_kafka\] callback_allowlist is empty"),
        ("on_commit", TOKEN, r"\[apache_kafka\] callback_allowlist is empty"),
        ("oauth_cb", {"a": 1}, "the dotted path of a function"),
        ("OAuth_CB", TOKEN, "oauth_cb cannot be set in a connection"),
        (" oauth_cb ", TOKEN, "oauth_cb cannot be set in a connection"),
        ("on_delivery", TOKEN, "on_delivery cannot be set in a connection"),
        ("partitioner_cb", TOKEN, "partitioner_cb cannot be set in a connection"),
        ("socket_cb", TOKEN, "socket_cb cannot be set in a connection"),
        ("ssl.certificate.verify_cb", TOKEN, "ssl.certificate.verify_cb cannot"),
        ("logger", TOKEN, "logger cannot be set in a connection"),
        ("interceptors", "x", "interceptors cannot be set in a connection"),
        ("default.topic.config", "acks", "name its options directly"),
        ("default.topic.config", {"plugin.library.paths": "/tmp/x.so"}, "name its options directly"),
        ("plugin.library.paths", "/tmp/x.so", r"\[workflow_events\] connection_code_allowlist"),
        (" Plugin.Library.Paths", "/tmp/x.so", r"\[workflow_events\] connection_code_allowlist"),
        ("ssl.engine.location", "/tmp/x.so", r"\[workflow_events\] connection_code_allowlist"),
        ("ssl.providers", "default,/tmp/x", "without a path"),
        ("ssl.providers", "../x", "without a path"),
        ("sasl.kerberos.kinit.cmd", "touch /tmp/x", r"\[workflow_events\] connection_code_allowlist"),
        ("sasl.kerberos.principal", "me; touch /tmp/x", "a shell would interpret"),
        ("sasl.kerberos.keytab", "/x$(id)", "a shell would interpret"),
        ("sasl.kerberos.service.name", "kafka`id`", "a shell would interpret"),
    ],
)
def test_an_option_that_brings_code_is_refused_on_every_way_in(
    connections: Connections, place: str, name: str, value: object, remedy: str
) -> None:
    extra = {**SERVERS, name: value} if place == "extra" else {**SERVERS, "config": {name: value}}
    hook = WorkflowEventHook(connections.add(extra=extra))

    for ask in (hook.client_options, hook.consumer_options, lambda: hook.get_producer(connect=False)):
        with pytest.raises(ConfigurationError, match=f"^connection 'workflow_events_default': .*{remedy}"):
            ask()
    ok, message = hook.test_connection()
    assert not ok
    assert "connection" in message


def test_a_refused_command_is_not_shown_as_it_may_hold_a_password(connections: Connections) -> None:
    extra = {**SERVERS, "sasl.kerberos.kinit.cmd": "echo canary | kinit etl"}
    hook = WorkflowEventHook(connections.add(extra=extra))

    worked, answer = hook.test_connection()

    assert not worked
    assert "sasl.kerberos.kinit.cmd is a command, which would load or run code" in answer
    assert "canary" not in answer


def test_a_callback_that_is_listed_is_resolved_and_others_are_still_refused(
    options: Callable[..., dict[str, Any]], set_options: Callable[..., None]
) -> None:
    set_options("apache_kafka", callback_allowlist=f" {TOKEN} , another.one")

    assert options({**LOGIN, "oauth_cb": TOKEN})["oauth_cb"] is token
    with pytest.raises(ConfigurationError, match=r"not in the \[apache_kafka\] callback_allowlist"):
        options({"error_cb": f"{TOKEN}x"})


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("no.such.module", "cannot be imported"),
        (f"{__name__}.nothing", "cannot be imported"),
        ("print", "cannot be imported"),
        (f"{__name__}.SERVERS", "is no function"),
    ],
)
def test_a_listed_callback_that_is_none_is_refused_by_name(
    options: Callable[..., dict[str, Any]], set_options: Callable[..., None], path: str, complaint: str
) -> None:
    set_options("apache_kafka", callback_allowlist=path)

    with pytest.raises(ConfigurationError, match=f"oauth_cb is '{path}', which {complaint}"):
        options({"oauth_cb": path})


def test_a_library_or_command_that_is_listed_is_handed_on(
    options: Callable[..., dict[str, Any]], set_options: Callable[..., None]
) -> None:
    set_options(connection_code_allowlist="/opt/a.so, /opt/b.so,kinit -k etl")
    allowed = {"plugin.library.paths": "/opt/a.so;/opt/b.so", "sasl.kerberos.kinit.cmd": "kinit -k etl"}

    assert allowed.items() <= options({**KERBEROS, **allowed}).items()
    with pytest.raises(ConfigurationError, match=r"plugin.library.paths is '/opt/c.so'"):
        options({"plugin.library.paths": "/opt/a.so;/opt/c.so"})


@pytest.mark.parametrize(
    "extra",
    [
        {"ssl.providers": "legacy, default"},
        {"sasl.kerberos.principal": "etl/host.example.org@EXAMPLE.ORG"},
        {"sasl.kerberos.keytab": "/etc/security/etl-1.keytab"},
        {"ssl.endpoint.identification.algorithm": "https"},
    ],
    ids=str,
)
def test_options_that_bring_no_code_are_as_before(
    options: Callable[..., dict[str, Any]], extra: dict[str, Any]
) -> None:
    assert extra.items() <= options(extra).items()


def test_no_library_is_loaded_and_no_command_run(connections: Connections, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for extra in (
        {"plugin.library.paths": str(tmp_path / "x.so")},
        {"sasl.kerberos.kinit.cmd": f"touch {trace}", **KERBEROS},
        {"oauth_cb": "os.system", "sasl.oauthbearer.config": f"touch {trace}", **LOGIN},
        {"oauth_cb": "subprocess.getoutput", "sasl.oauthbearer.config": f"touch {trace}", **LOGIN},
    ):
        ok, message = WorkflowEventHook(connections.add(extra={**SERVERS, **extra})).test_connection()
        assert not ok
        assert "dlopen" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_build_config", [True, False])
def test_a_kafka_provider_of_any_age_completes_the_options_and_resolves_nothing_itself(
    options: Callable[..., dict[str, Any]],
    set_options: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    has_build_config: bool,
) -> None:
    if not has_build_config and hasattr(KafkaBaseHook, "_build_config"):
        # As up to 1.15.0, where get_conn completes the options, and hands them to its client at once.
        build = KafkaBaseHook._build_config
        monkeypatch.delattr(KafkaBaseHook, "_build_config")
        monkeypatch.setattr(
            KafkaBaseHook.__dict__["get_conn"], "func", lambda self: self._get_client(build(self))
        )
    set_options("apache_kafka", callback_allowlist=TOKEN)

    found = options({**LOGIN, "oauth_cb": TOKEN, "linger.ms": 5})
    assert (found["oauth_cb"], found["linger.ms"]) == (token, 5)
    with pytest.raises(ConfigurationError, match="callback_allowlist"):
        options({"error_cb": "os.system"})
