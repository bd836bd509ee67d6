"""What each component of Airflow says at its start: what is on, and each mistake in the options."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_workflow_events.settings import Settings

log: logging.Logger = logging.getLogger(__name__)

# The commands of Airflow that stay, and where each has the relay of the listener's events.
_COMPONENTS = {
    ("scheduler",): "in this process",
    ("dag-processor",): "in this process",
    ("triggerer",): "in this process",
    ("api-server",): "in this process, from the first mark by hand on",
    ("celery", "worker"): "beside this process, for an outbox in a file",
}
# Event types that the listener never publishes.
_NOT_THE_LISTENERS = frozenset({"workflow.triggered", "workflow.deadline_missed"})


def told_at_start() -> None:
    """See to it that the component which this command starts says what is on; any other command says nothing.

    Airflow asks each provider for its commands in the main process of every component, also where the
    listener is off and no plugin of this package has anything to do.
    """
    from airflow.utils.cli_action_loggers import register_pre_exec_callback

    register_pre_exec_callback(_tell)  # type: ignore[no-untyped-call]


def tell_unless_told() -> None:
    """Say what is on, for a job of Airflow 3.1, which asks no provider for its commands."""
    if not _is_told:
        _tell()


# Forked children have what their parent said.
_is_told = False


def _tell(**_: object) -> None:
    global _is_told  # noqa: PLW0603 - the process's
    relay = next((_COMPONENTS[one] for one in _COMPONENTS if sys.argv[1 : len(one) + 1] == [*one]), None)
    if relay is None:
        return
    _is_told = True
    try:
        from airflow_workflow_events.settings import Settings

        settings = Settings.load()
        log.info("%s", summary(settings, relay))
        for mistake in [
            *settings.mistakes,
            *unknown_options(),
            *filters_without_effect(settings),
            *outbox_mistakes(settings),
        ]:
            log.warning("%s", mistake)
    except Exception as error:  # noqa: BLE001 - whatever is wrong here, Airflow starts
        log.warning("the options of [workflow_events] cannot be read: %s: %s", type(error).__name__, error)


def summary(settings: Settings, relay: str) -> str:
    """Return the line: listener, filters, target, outbox, relay."""
    chosen = settings.selection
    filters = {
        "dags_allow": chosen.dags_allow,
        "dags_deny": chosen.dags_deny,
        "tasks_allow": chosen.tasks_allow,
        "tasks_deny": chosen.tasks_deny,
        "event_types": chosen.event_types,
    }
    named = "; ".join(f"{name} {', '.join(globs)}" for name, globs in filters.items() if globs)
    target = f"connection {settings.conn_id}, topic {settings.topic} unless the connection names one"
    if chosen.task_topic:
        target += f", task events to {chosen.task_topic}"
    if not settings.listener:
        relay = "none in this process"
    listener = f"listener on ({named or 'no filters'})" if settings.listener else "listener off"
    return f"workflow events: {listener}; {target}; outbox {_outbox_of(settings)}; relay {relay}"


def _outbox_of(settings: Settings) -> str:
    """Return where the outbox is, without the login that its URL may hold."""
    if settings.outbox_url is None:
        return "none"
    from airflow_workflow_events.errors import ConfigurationError
    from airflow_workflow_events.outbox.engines import parsed_url

    try:
        url = parsed_url(settings.outbox_url)
    except ConfigurationError as error:
        return f"not usable: {error}"
    kind = url.get_backend_name()
    return f"{kind} {url.database}" if kind == "sqlite" else f"{kind} {url.database} at {url.host}"


def outbox_mistakes(settings: Settings) -> list[str]:
    """Return a line where the outbox cannot be used, or where events wait in a file that nobody relays."""
    from airflow_workflow_events.errors import ConfigurationError, OutboxError
    from airflow_workflow_events.outbox.database import OutboxDatabase
    from airflow_workflow_events.outbox.store import Outbox
    from airflow_workflow_events.settings import default_outbox_file, is_default_outbox

    file = default_outbox_file()
    url = settings.outbox_url or f"sqlite:///{file}"
    if settings.outbox_url is None and not file.exists():
        return []
    try:
        database = OutboxDatabase(url, strict_path=not is_default_outbox(url))
        if settings.outbox_url is not None:
            database.check()
            return []
        pending = Outbox(database).totals().pending
        database.close()
    except ConfigurationError:
        return []  # the line of the start says it
    except OutboxError as error:
        return [str(error)]
    if not pending:
        return []
    waiting = (
        f"{pending} event(s) wait in {file}, and no relay delivers them while [workflow_events] listener is"
    )
    return [
        f"{waiting} off: run `airflow workflow-events relay` until `airflow workflow-events outbox` shows 0"
    ]


def unknown_options() -> list[str]:
    """Return a line for each option of ``[workflow_events]`` that there is not."""
    from airflow_workflow_events.compat import conf

    from airflow_workflow_events.provider_info import CONFIG_SECTION, OPTIONS
    from airflow_workflow_events.settings import INDIRECT_ENDINGS

    prefix = f"AIRFLOW__{CONFIG_SECTION.upper()}__"
    # Not conf.getsection(), which would run the commands that some options are read from.
    names = {name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix)}
    if conf.has_section(CONFIG_SECTION):
        names.update(conf.options(CONFIG_SECTION))
    mistakes = []
    for name in sorted(names):
        bare = next((name.removesuffix(end) for end in INDIRECT_ENDINGS if name.endswith(end)), name)
        if bare in OPTIONS and bare != name and not OPTIONS[bare].get("sensitive"):
            mistakes.append(
                f"[{CONFIG_SECTION}] {name} has no effect: Airflow reads only "
                f"{' and '.join(_sensitive())} from a command or a secrets backend; set {bare} itself"
            )
        elif bare not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, 1)
            remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(OPTIONS))}"
            mistakes.append(f"[{CONFIG_SECTION}] {name} is not an option: {remedy}")
    return mistakes


def _sensitive() -> list[str]:
    from airflow_workflow_events.provider_info import OPTIONS

    return [name for name in OPTIONS if OPTIONS[name].get("sensitive")]


def filters_without_effect(settings: Settings) -> list[str]:
    """Return a line for each glob of event types and DAGs that matches nothing there is."""
    if not settings.listener:
        return []
    from airflow_workflow_events.events.model import EventType

    chosen = settings.selection
    published = [str(kind) for kind in EventType if kind not in _NOT_THE_LISTENERS]
    mistakes = [
        f"[workflow_events] event_types: {glob!r} matches no event type of the listener's: "
        f"{', '.join(published)}"
        for glob in _without_match(chosen.event_types, published)
    ]
    if sys.argv[1:2] == ["scheduler"] and chosen.dags_allow and (known := _known_dags()):
        mistakes += [
            f"[workflow_events] dags_allow: {glob!r} matches none of the {len(known)} DAGs there are now"
            for glob in _without_match(chosen.dags_allow, known)
        ]
    return mistakes


def _without_match(globs: Iterable[str], names: Iterable[str]) -> list[str]:
    return [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)]


def _known_dags() -> list[str]:
    """Return the ids of Airflow's DAGs; none where its database cannot be asked."""
    from airflow import settings as of_airflow
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    try:
        engine: Any = of_airflow.engine
        with engine.connect() as connection:
            return list(connection.execute(select(DagModel.dag_id)).scalars())
    except Exception as error:  # noqa: BLE001 - a database that is not there yet, for one
        log.debug("dags_allow was not compared with Airflow's DAGs: %s", error)
        return []
