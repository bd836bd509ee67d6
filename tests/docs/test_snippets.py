"""Each code block of README.md and docs/*.md works as it stands there."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from airflow_workflow_events import EmbeddedBroker, WorkflowEventProducer
from airflow_workflow_events.events import decode
from airflow_workflow_events.kafka.consumer_config import DEFAULTS
from tests.brokers.jvm import KafkaCluster, SecureListener
from tests.docs.airflow_files import AirflowFiles
from tests.docs.expectations import CHECKS
from tests.docs.forwarder import Forwarder
from tests.docs.reading import Reading, Site
from tests.docs.secure_site import SecureSite, secure_site
from tests.docs.snippets import KINDS, Snippet, all_snippets, documents, snippets_of
from tests.docs.topics import Topics
from tests.events import make_event

_DOCUMENTED_PORT = 9092

SNIPPETS = all_snippets()
PYTHON = [s for s in SNIPPETS if s.language == "python" and s.kind not in {"pytest", "secure"}]
SECURE = [snippet for snippet in SNIPPETS if snippet.language == "python" and snippet.kind == "secure"]
SHELL = [snippet for snippet in SNIPPETS if snippet.language == "bash"]


def cases(snippets: list[Snippet]) -> list[Any]:
    """Test cases; those of one document stay together where pytest-xdist is asked to group."""
    return [
        pytest.param(snippet, id=snippet.id, marks=pytest.mark.xdist_group(snippet.document))
        for snippet in snippets
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker for the documents, at ``localhost:9092`` unless somebody else listens there."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        servers = broker.bootstrap_servers
        with contextlib.suppress(OSError):
            stack.enter_context(Forwarder(_DOCUMENTED_PORT, broker.bootstrap_servers))
            servers = f"localhost:{_DOCUMENTED_PORT}"
        # librdkafka's mock lets a group that somebody has left wait for almost as long as a session.
        stack.enter_context(mock.patch.dict(DEFAULTS, {"session.timeout.ms": 1_500}))
        topics = stack.enter_context(Topics(broker.bootstrap_servers))
        airflow = AirflowFiles(tmp_path_factory.mktemp("dags"), broker.bootstrap_servers)
        yield Site(broker, servers, topics, airflow)


@pytest.fixture(scope="module")
def reading_of(site: Site) -> Iterator[Callable[[str], Reading]]:
    """The reading of a document, begun when it is first asked for."""
    begun: dict[str, Reading] = {}

    def reading(document: str) -> Reading:
        if document not in begun:
            snippets = [snippet for snippet in PYTHON if snippet.document == document]
            begun[document] = Reading(snippets, CHECKS.get(document, {}), site)
        return begun[document]

    yield reading
    for one in begun.values():
        one.close()


@pytest.fixture(scope="module")
def secure(kafka_cluster: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureSite]:
    """A real Kafka with credentials."""
    listener = kafka_cluster.secure
    if listener is None:
        pytest.skip("no real Kafka: openssl is not on the PATH")
    with secure_site(listener, kafka_cluster.bootstrap_servers, tmp_path_factory.mktemp("tls")) as found:
        yield found


@pytest.mark.parametrize("snippet", cases(PYTHON))
def test_the_snippet_does_what_the_document_says(
    snippet: Snippet, reading_of: Callable[[str], Reading]
) -> None:
    error = reading_of(snippet.document).result(snippet)
    if error is not None:
        raise error


@pytest.mark.real_kafka
@pytest.mark.parametrize("snippet", cases(SECURE))
def test_the_snippet_gets_through_a_secure_listener(
    snippet: Snippet, secure: SecureSite, secure_listener: SecureListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secure.environment.items():
        monkeypatch.setenv(name, value)
    event = make_event()
    names: dict[str, Any] = {
        "__name__": "documentation",
        "event": event,
        "WorkflowEventProducer": WorkflowEventProducer,
    }
    code = secure.at_this_broker(snippet.code)
    with Topics(secure.open_servers) as topics, contextlib.redirect_stdout(io.StringIO()) as printed:
        topics.mark()
        exec(compile("\n" * (snippet.line - 1) + code, snippet.document, "exec"), names)
        if producer := names.get("producer"):
            assert producer.close()
        messages = topics.new("workflow-events")

    if "publish_event(" in code:
        assert [decode(message.value()) for message in messages] == [event]
    else:
        assert messages == []
        assert "Authentication failed" in printed.getvalue()


@pytest.mark.parametrize("snippet", cases(SHELL))
def test_the_shell_accepts_the_syntax(snippet: Snippet) -> None:
    checked = subprocess.run(
        ["bash", "-n"], input=snippet.code, capture_output=True, text=True, timeout=60, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_comment_about_a_snippet_is_known_and_none_is_skipped() -> None:
    assert {snippet.kind for snippet in SNIPPETS} <= set(KINDS)


def test_every_python_snippet_of_a_document_with_expectations_has_one() -> None:
    for document, checks in CHECKS.items():
        assert {snippet.key for snippet in PYTHON if snippet.document == document} == checks.keys()


def test_code_is_in_blocks_that_say_their_language() -> None:
    assert [snippet.id for snippet in SNIPPETS if not snippet.language] == []


def test_code_in_other_languages_is_executed_as_a_consumer() -> None:
    # A diagram is drawn by whoever shows the document.
    known = {"bash", "json", "mermaid", "python", "yaml"}
    others = [snippet for snippet in SNIPPETS if snippet.language not in known]

    assert [snippet.id for snippet in others if snippet.kind != "consumer"] == []


def test_manifests_are_yaml_that_runs_a_command_of_this_package() -> None:
    manifests = [snippet for snippet in SNIPPETS if snippet.language == "yaml"]

    assert manifests
    for snippet in manifests:
        manifest = yaml.safe_load(snippet.code)
        assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()
        [container] = manifest["spec"]["template"]["spec"]["containers"]
        assert [*container.get("command", []), *container["args"]][-2:] == ["workflow-events", "relay"]


def test_every_document_is_looked_at() -> None:
    root = Path(__file__).parents[2]

    assert {"README.md", "docs/producer.md"} <= set(documents())
    assert all((root / document).is_file() for document in documents())


def test_blocks_are_found_with_their_heading_kind_and_line() -> None:
    text = (
        "# Title\n## A\n\n<!-- snippet: dag -->\n```python\nx = 1\n```\n### B\n"
        "- item\n  ```python\n  y = 2\n  ```\n## C\n```bash\nls\n```\n"
    )

    assert [(s.key, s.language, s.kind, s.line, s.code) for s in snippets_of(text, "d.md")] == [
        ("A", "python", "dag", 6, "x = 1\n"),
        ("A > B", "python", "", 11, "y = 2\n"),
        ("C", "bash", "", 15, "ls\n"),
    ]


def test_a_block_that_is_not_closed_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"d\.md:2: the code block is not closed"):
        list(snippets_of("# T\n```python\nx = 1\n", "d.md"))


def test_each_result_is_reported_where_it_belongs(site: Site) -> None:
    text = "# T\n## A\n```python\nraise ValueError('a')\n```\n## B\n```python\nb = 2\n```\n"
    first, second = snippets_of(text, "d.md")
    reading = Reading([first, second], {}, site)

    assert reading.result(second) is None
    error = reading.result(first)
    assert isinstance(error, ValueError)
    assert "snippet: d.md:4, A" in error.__notes__
    reading.close()
