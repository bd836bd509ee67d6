"""Reading a document: its code blocks are executed in order, as somebody who tries them out would do.

The blocks of a document share their names. Where a block stands for an excerpt of a program, it may use these
without defining them:

- ``event``, ``event1``, ``event2``: different events, and ``events``: a list of five;
- ``producer``: an open producer for the broker, in place of none or of one that was closed before.

Functions called ``test_...`` are called after the block that defines them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from airflow_workflow_events import EmbeddedBroker, WorkflowEvent, WorkflowEventProducer
from airflow_workflow_events.events import decode
from tests.docs.airflow_files import AirflowFiles
from tests.docs.snippets import ROOT, Snippet
from tests.docs.topics import Topics
from tests.events import make_event, make_events

#: Where the documentation says a broker is.
_DOCUMENTED_SERVERS = re.compile(r"\b(?:localhost|kafka|kafka\.example\.com):9092\b")
#: Where it says a schema registry is, and where confluent-kafka's mock one is.
_DOCUMENTED_REGISTRY, _REGISTRY = "http://schema-registry:8081", "mock://documentation"
_PRODUCER_FOR_THE_DEFAULT_SERVERS = re.compile(r"(\w*WorkflowEventProducer)\(\)")

Check = Callable[["Run"], None]
"""Asserts what one snippet did."""


@dataclass(frozen=True)
class Site:
    """Where documents are read: a broker, and how code reaches it.

    Attributes:
        broker: the broker.
        servers: its address; ``localhost:9092`` where that is forwarded to it.
        topics: reads what is written to it.
        airflow: parses and runs DAG files.
    """

    broker: EmbeddedBroker
    servers: str
    topics: Topics
    airflow: AirflowFiles

    def at_this_broker(self, code: str) -> str:
        """Have code use this broker in place of the documented one."""
        code = _DOCUMENTED_SERVERS.sub(self.servers, code).replace(_DOCUMENTED_REGISTRY, _REGISTRY)
        if self.servers != "localhost:9092":
            code = _PRODUCER_FOR_THE_DEFAULT_SERVERS.sub(rf'\1("{self.servers}")', code)
        return code


@dataclass
class Run:
    """One snippet that was executed, for the check of what it did."""

    snippet: Snippet
    site: Site
    module: ModuleType
    code: str
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)

    @property
    def names(self) -> dict[str, Any]:
        """The names the document's snippets share."""
        return vars(self.module)

    @property
    def printed(self) -> str:
        """What it wrote to stdout."""
        return self.out.getvalue()

    @property
    def log(self) -> str:
        """What it wrote to stderr, where Python's default logging goes."""
        return self.err.getvalue()

    def published(self, topic: str = "workflow-events") -> list[WorkflowEvent]:
        """The events that came to the topic since the snippet began, or since this was last called."""
        return [decode(message.value(), message.headers()) for message in self.site.topics.new(topic)]

    def execute(self) -> None:
        """Execute the code, with the document's line numbers in tracebacks; a check may do it again."""
        padding = "\n" * (self.snippet.line - 1)
        program = compile(padding + self.code, str(ROOT / self.snippet.document), "exec")
        known = set(self.names)
        exec(program, self.names)
        for name in [name for name in self.names if name.startswith("test_") and name not in known]:
            self.names[name]()

    def refused(self) -> None:
        """Execute the code again while the broker refuses what is produced; a new producer is used then."""
        self.site.broker.fail_produce_requests([_TOPIC_AUTHORIZATION_FAILED])
        try:
            self.execute()
        finally:
            self.site.broker.clear_failures()
            self.names["producer"].close()


# Kafka's code for it, which the client takes for final.
_TOPIC_AUTHORIZATION_FAILED = 29


class Reading:
    """The snippets of one document, each executed once and after those before it, whichever is asked for.

    Args:
        snippets: the document's Python snippets, in order.
        checks: what to assert of them, by key.
        site: where to.
    """

    def __init__(self, snippets: Sequence[Snippet], checks: dict[str, Check], site: Site) -> None:
        self._snippets = snippets
        self._checks = checks
        self._site = site
        self._results: list[BaseException | None] = []
        document = snippets[0].document
        self._module = ModuleType(f"documentation_{re.sub(r'[^a-z0-9]', '_', document.lower())}")

    def result(self, snippet: Snippet) -> BaseException | None:
        """What went wrong with a snippet or with the check of what it did, if something did."""
        index = self._snippets.index(snippet)
        while len(self._results) <= index:
            self._results.append(self._read(self._snippets[len(self._results)]))
        return self._results[index]

    def close(self) -> None:
        """Close what the snippets left open."""
        for value in vars(self._module).values():
            if isinstance(value, WorkflowEventProducer):
                value.close()

    def _read(self, snippet: Snippet) -> BaseException | None:
        run = Run(snippet, self._site, self._module, self._site.at_this_broker(snippet.code))
        sys.modules[self._module.__name__] = self._module  # where e.g. dataclasses look their names up
        try:
            with (
                _logging_as_in_a_new_process(),
                contextlib.redirect_stdout(run.out),
                contextlib.redirect_stderr(run.err),
            ):
                self._provide_names()
                self._site.topics.mark()
                if snippet.kind == "dag":
                    self._site.airflow.parse(snippet, self._snippets, self._site.at_this_broker)
                else:
                    run.execute()
                if check := self._checks.get(snippet.key):
                    check(run)
        except (Exception, SystemExit) as error:
            error.add_note(f"snippet: {snippet.document}:{snippet.line}, {snippet.key}")
            error.add_note(f"stdout: {run.printed!r}")
            error.add_note(f"stderr: {run.log!r}")
            return error
        finally:
            del sys.modules[self._module.__name__]
        return None

    def _provide_names(self) -> None:
        names = vars(self._module)
        for name in ("event", "event1", "event2"):
            names.setdefault(name, make_event())
        names.setdefault("events", make_events(5))
        producer = names.get("producer")
        if not isinstance(producer, WorkflowEventProducer) or "closed" in repr(producer):
            names["producer"] = WorkflowEventProducer(bootstrap_servers=self._site.servers)


@contextlib.contextmanager
def _logging_as_in_a_new_process() -> Iterator[None]:
    """Hide the test runner's log handlers, which ``logging.basicConfig`` would leave in charge."""
    root, package = logging.getLogger(), logging.getLogger("airflow_workflow_events")
    handlers, level, package_level = root.handlers[:], root.level, package.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        package.setLevel(package_level)
