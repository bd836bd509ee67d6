"""Which errors no waiting helps against, in the words of several versions of librdkafka and OpenSSL."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError as Code

from airflow_workflow_events.errors import KafkaAuthenticationError
from airflow_workflow_events.kafka import connection as module
from airflow_workflow_events.kafka import probing, refusals
from airflow_workflow_events.kafka.connection import Connection
from tests.brokers.certificates import make_certificates


@pytest.mark.parametrize(
    "text",
    [
        "ssl://k:9093/1: Receive failed: SSL routines::ssl/tls alert bad certificate: SSL alert number 42",
        "ssl://k:9093/1: SSL handshake failed: ssl3_read_bytes:sslv3 alert certificate unknown",
        "ssl://k:9093/1: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required",
        "ssl://k:9093/1: Receive failed: error:0A000418:SSL routines::tlsv1 alert unknown ca",
        "ssl://k:9093/1: SSL handshake failed: sslv3 alert certificate expired",
        "ssl://k:9093/1: SSL handshake failed: sslv3 alert handshake failure",
    ],
)
def test_an_alert_about_the_clients_certificate_is_a_refusal(text: str) -> None:
    error = Code(Code._TRANSPORT, text)

    assert refusals.is_refusal(error)
    said = refusals.refusal_of(error, text, {})
    assert isinstance(said, KafkaAuthenticationError)
    assert not said.retriable
    assert "demands a client certificate" in str(said)


@pytest.mark.parametrize(
    "text",
    [
        "k:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
        "k:9092/1: Disconnected while requesting ApiVersion",
        "ssl://k:9093/1: Disconnected (after 180004ms in state UP)",
    ],
)
def test_a_broker_that_is_away_is_no_refusal(text: str) -> None:
    assert not refusals.is_refusal(Code(Code._TRANSPORT, text))


@pytest.mark.parametrize(
    ("text", "may_be"),
    [
        ("k:9092/b: Disconnected: connection closed by peer (after 4ms in state APIVERSION_QUERY)", True),
        ("k:9092/b: Disconnected while requesting ApiVersion: might be caused by ...", True),
        ("ssl://k:9093/b: Disconnected: SSL connection closed by peer (after 1ms in state UP)", True),
        ("k:9092/1: Disconnected (after 180004ms in state UP)", False),
        ("k:9092/1: Connect failed: Connection refused (after 0ms in state CONNECT)", False),
    ],
)
def test_only_a_listener_that_hangs_up_at_once_may_speak_another_protocol(text: str, may_be: bool) -> None:
    assert refusals.is_hang_up(text) is may_be


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("sasl_ssl://kafka.example.com:9093/bootstrap: failed", ("kafka.example.com", 9093)),
        ("ssl://[2001:db8::1]:9093/3: failed", ("2001:db8::1", 9093)),
        ("FAIL [thrd:x]: 127.0.0.1:22705/bootstrap: Disconnected", ("127.0.0.1", 22705)),
        ("1/1 brokers are down", None),
    ],
)
def test_the_address_is_read_from_librdkafkas_text(text: str, address: object) -> None:
    assert probing.address_in(text) == address


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on the PATH")
def test_the_day_on_which_a_certificate_expires_is_read_from_its_file(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    now = dt.datetime.now(dt.UTC)

    valid = probing.expiry(certificates.client_certificate)
    expired = probing.expiry(certificates.expired_client_certificate)

    assert valid is not None
    assert valid > now
    assert expired is not None
    assert expired < now
    assert probing.expiry(certificates.client_key) is None
    assert probing.expiry(tmp_path / "nowhere.pem") is None


@pytest.fixture
def hanging_up() -> Iterator[probing.Address]:
    """A listener that closes every connection, as that of a container which is still starting does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_listener_that_hangs_up_on_everybody_is_taken_for_one_that_starts(
    hanging_up: probing.Address,
) -> None:
    text = f"{hanging_up[0]}:{hanging_up[1]}/bootstrap: Disconnected (after 1ms in state APIVERSION_QUERY)"

    assert refusals.mismatch_of(text, {}) is None
    assert refusals.mismatch_of(text, {"security.protocol": "SSL"}) is None


def test_brokers_that_took_the_login_before_are_given_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    known = Connection({"bootstrap.servers": "k:9092"})
    refused, all_down = Code(Code._AUTHENTICATION, "no"), Code(Code._ALL_BROKERS_DOWN, "1/1 brokers are down")

    known.accept()
    now += 1
    known.note(refused)
    assert known.final_refusal() is None, "another broker may take it"
    known.note(all_down)
    assert known.final_refusal() is None, "it was refused but once"
    now += 2
    known.note(refused)
    assert known.final_refusal() is not None

    now += 1
    known.accept()
    assert known.final_refusal() is None
    assert known.refusal() is None


def test_a_client_that_was_never_taken_is_refused_for_good_at_once() -> None:
    new = Connection({"bootstrap.servers": "k:9092"})

    new.note(Code(Code._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert new.final_refusal() is None, "away is not refused"
    new.note(Code(Code._AUTHENTICATION, "k:9092/1: no\r\n\x1b[31mred" + "x" * 5_000))

    said = new.final_refusal()
    assert isinstance(said, KafkaAuthenticationError)
    assert str(said).isprintable()
    assert len(str(said)) < 1_000


def test_a_web_server_is_told_from_a_broker() -> None:
    text = (
        "web:80/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase "
        "receive.message.max.bytes (after 0ms in state APIVERSION_QUERY)"
    )
    one = Connection({"bootstrap.servers": "web:80"})
    one.note_log(text)
    assert "the listener at web:80 speaks HTTP" in str(one.refusal())
