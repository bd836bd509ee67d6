"""A person makes a connection in Airflow's UI, tries it out, and a DAG publishes through it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.airflow_e2e.deployment import Airflow
from tests.broker import event_of, real
from tests.brokers.jvm import KafkaCluster, SecureListener
from tests.programs import require_program

pytestmark = [
    pytest.mark.browser,
    pytest.mark.airflow_e2e,
    pytest.mark.real_kafka,
    pytest.mark.xdist_group("airflow"),
]

CONNECTION = "events_from_form"
TOPIC = "events-browser"
#: Where to keep the screenshots that the documentation shows; they are made anew only when this is set.
SCREENSHOTS = os.environ.get("SAVE_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = require_program("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium,
            # Nothing but loopback may be reached, and root runs it in CI.
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, airflow: Airflow) -> Iterator[Page]:
    """The list of connections, logged in."""
    context = browser.new_context(viewport={"width": 1280, "height": 1240})
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    opened.goto(f"{airflow.deployment.url}/connections")
    opened.fill('input[name="username"]', airflow.deployment.user)
    opened.fill('input[name="password"]', airflow.deployment.password)
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("button", name="Add Connection")).to_be_visible(timeout=30_000)
    yield opened
    context.close()


def choose(page: Page, field: str, option: str) -> None:
    """Choose from a drop-down of the form."""
    page.locator(f'[id="element_{field}"]').click()
    page.get_by_role("option", name=option).click()


def fill(page: Page, field: str, value: str) -> None:
    """Fill in a text field of the form."""
    page.locator(f'[id="element_{field}"]').fill(value)


def open_section(page: Page, name: str) -> None:
    """Open a section of the form and wait until it has stopped moving."""
    heading = page.get_by_role("button", name=name, exact=True)
    heading.click()
    expect(heading).to_have_attribute("aria-expanded", "true")


def picture(page: Page, name: str, *, height: int) -> None:
    if SCREENSHOTS:
        page.set_viewport_size({"width": 1280, "height": height})
        page.screenshot(path=Path(SCREENSHOTS) / name, animations="disabled")


def fill_in_form(page: Page, listener: SecureListener, *, topic: str, password: str) -> None:
    """Make a connection as a person would, section by section."""
    host, _, port = listener.bootstrap_servers.split(",")[0].rpartition(":")
    page.get_by_role("button", name="Add Connection").click()
    page.fill('input[name="connection_id"]', CONNECTION)
    page.locator("[role=combobox]").first.click()
    page.keyboard.type("Workflow Events")
    page.get_by_role("option", name="Workflow Events (Kafka)").click()
    page.fill('input[name="host"]', host)
    page.fill('input[name="port"]', port)
    open_section(page, "Events")
    fill(page, "topic", topic)
    fill(page, "environment", "browser")
    open_section(page, "Security")
    choose(page, "security.protocol", "SASL_SSL")
    choose(page, "sasl.mechanism", "SCRAM-SHA-512")
    fill(page, "sasl.username", "writer")
    fill(page, "sasl.password", password)
    fill(page, "ssl.ca.location", "/etc/kafka/ca.pem")
    picture(page, "connection-form.png", height=1480)
    fill(page, "ssl.ca.location", listener.ca_location)
    page.get_by_role("button", name="Save").click()
    expect(page.locator("tr", has_text=CONNECTION)).to_be_visible()


def press_test_button(page: Page, expected: str) -> None:
    """Press the row's test button and wait for the notice."""
    row = page.locator("tr", has_text=CONNECTION)
    row.get_by_role("button", name="Test Connection").click()
    expect(page.get_by_text(expected)).to_be_visible(timeout=30_000)


@pytest.fixture
def no_connection(airflow: Airflow) -> Iterator[None]:
    """Leave the list of connections as it was."""
    yield
    airflow.deployment.request("DELETE", f"/connections/{CONNECTION}")


@pytest.mark.usefixtures("no_connection")
def test_a_connection_made_in_the_form_is_tested_by_its_button_and_used_by_an_operator(
    page: Page, airflow: Airflow, kafka_cluster: KafkaCluster, secure_listener: SecureListener
) -> None:
    kafka_cluster.create_topic(TOPIC, partitions=4)
    password = secure_listener.users["writer"]
    fill_in_form(page, secure_listener, topic=TOPIC, password=password)

    press_test_button(page, f"Connected to Kafka; events can be published to topic {TOPIC}.")
    picture(page, "connection-test.png", height=560)

    answer = airflow.deployment.request("GET", f"/connections/{CONNECTION}")
    extra = json.loads(answer.json()["extra"])
    assert extra["sasl.password"] == "***"
    assert extra["sasl.mechanism"] == "SCRAM-SHA-512"
    assert extra["acks"] is None, "a blank field is stored as null, and the hook drops it"
    assert password not in answer.text

    run_id, state = airflow.run("edge_connection_of_the_form")
    assert state == "success"
    [message] = real(kafka_cluster.bootstrap_servers, "jvm").messages(TOPIC, 1)
    event = event_of(message)
    assert event.workflow_run_id == run_id
    assert event.metadata.environment == "browser"
    assert event.payload.data == {"by": "a connection made in the browser"}
    for log in airflow.deployment.logs.rglob("*.log"):
        assert password not in log.read_text(errors="replace"), f"the password is in {log.name}"


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize(
    ("topic", "password", "expected"),
    [
        ("events-that-nobody-made", None, "topic events-that-nobody-made does not exist"),
        ("events-browser-2", "not the password", "Authentication failed"),
        ("forbidden-topic", None, "not authorised"),
    ],
    ids=["topic missing", "authentication refused", "not authorised to write"],
)
def test_the_button_says_what_is_wrong(
    page: Page,
    kafka_cluster: KafkaCluster,
    secure_listener: SecureListener,
    topic: str,
    password: str | None,
    expected: str,
) -> None:
    if topic == "forbidden-topic":
        kafka_cluster.create_topic(topic)
    fill_in_form(page, secure_listener, topic=topic, password=password or secure_listener.users["writer"])
    press_test_button(page, expected)
