"""Fork while other threads look up, publish, relay, mask and log: ``fork_storm FOLDER FORKS [LOOK_UP_MS]``.

Each child does all of it once and ends. One that has not ended in time writes its stack to stderr and is
killed. Ends with 0 where every child ended by itself with its work done, and nearly none was refused the
outbox; stderr tells how far it is, the last line of stdout counts.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from itertools import count

from tests.airflow_home import AIRFLOW_HOME

# isort: split
import structlog
from airflow.sdk.log import mask_secret
from airflow.secrets import BaseSecretsBackend

from airflow_workflow_events import EmbeddedBroker, WorkflowEventProducer
from airflow_workflow_events.errors import OutboxUnavailableError
from airflow_workflow_events.events.model import WorkflowEvent
from airflow_workflow_events.hooks import WorkflowEventHook
from airflow_workflow_events.lifecycle.redaction import without_secrets
from airflow_workflow_events.outbox.database import OutboxDatabase
from airflow_workflow_events.outbox.entries import DEFAULT_ROUTE
from airflow_workflow_events.outbox.store import Outbox
from airflow_workflow_events.relaying import METRICS, background_relay
from tests.events import make_event

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0
# Well below that, so that a child that cannot write says why before it counts as one that hangs.
_ACCEPT_SECONDS = 30.0
_AT_ONCE = 3
# How a child ends. Refused: its fork did not get its turn with the outbox, so it says so and does not use it.
_DONE, _FAILED, _REFUSED = 0, 1, 2
_REFUSED_AT_MOST = 0.005
_SECRETS = 1_000
_CONNECTION = '{"conn_type": "workflow_events", "extra": {"bootstrap.servers": "%s", "topic": "storm"}}'


class SlowBackend(BaseSecretsBackend):
    """A vault: its client is a cached property, it logs, and takes its time."""

    milliseconds = 0.0

    def get_connection(self, conn_id: str, team_name: str | None = None) -> None:
        _Vault().client.debug("a secrets backend is asked for %s", conn_id)


class _Vault:
    @cached_property
    def client(self) -> logging.Logger:
        time.sleep(random.uniform(0, 2 * SlowBackend.milliseconds) / 1000)
        return log


class Storm:
    """What threads do over and over, and each child once."""

    def __init__(self, broker: EmbeddedBroker, folder: str) -> None:
        self._outbox = Outbox(OutboxDatabase(f"sqlite:///{folder}/outbox.db"))
        self._producer = WorkflowEventProducer(broker.bootstrap_servers, topic="storm")
        self._structured = structlog.wrap_logger(structlog.WriteLogger(sys.stderr))
        self._numbers = count()
        self.was_refused = False
        self.relay = background_relay(self._outbox)

    def look_up(self) -> None:
        hook = WorkflowEventHook("workflow_events_default")
        assert hook.client_options()["bootstrap.servers"]
        assert hook.consumer_options()
        assert hook.topic == "storm"

    def accept(self) -> None:
        event, deadline = self._event(), time.monotonic() + _ACCEPT_SECONDS
        while True:
            try:
                self._outbox.append(event, DEFAULT_ROUTE)
                break
            except OutboxUnavailableError as error:  # "database is locked", where many processes write
                log.debug("process %d tries again: %s", os.getpid(), error)
                if "forked in the middle" in str(error):
                    self.was_refused = True  # its fork could not wait any longer
                    return
                if time.monotonic() > deadline:
                    raise

    def publish(self) -> None:
        assert self._producer.publish_event(self._event(), timeout=_PATIENCE_SECONDS)

    def mask(self) -> None:
        # Not ever more: Airflow's masker compiles all its secrets again for each new one.
        mask_secret(f"storm-{next(self._numbers) % _SECRETS}")
        assert without_secrets(self._event({"password": "storm"})) is not None
        METRICS.incr("storm")

    def log(self) -> None:
        log.debug("%s", "a line of the standard library's " * 20)
        self._structured.msg("a line of structlog's " * 20)
        log.info("the event is %r", self._event())

    def _event(self, data: dict[str, str] | None = None) -> WorkflowEvent:
        return make_event(event_id=f"{os.getpid()}-{next(self._numbers)}", data=data or {})

    @property
    def work(self) -> list[Callable[[], None]]:
        return [self.look_up, self.accept, self.publish, self.mask, self.log]


class Forking:
    """Forks, and sees to it that every child ends."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        self._children: dict[int, float] = {}
        self.ended = Counter[int]()
        self.hung = 0

    def fork(self) -> None:
        """Fork a child, once fewer than so many are there."""
        while len(self._children) >= _AT_ONCE:
            self.reap()
        pid = os.fork()
        if pid == 0:
            code = _FAILED
            try:
                for work in self._storm.work:
                    work()
                code = _REFUSED if self._storm.was_refused else _DONE
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        self._children[pid] = time.monotonic()

    def reap(self) -> None:
        """Wait a moment for children that ended; end those that hang."""
        for pid, began in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._children[pid]
                self.ended[os.waitstatus_to_exitcode(status)] += 1
            elif time.monotonic() - began > _PATIENCE_SECONDS:
                del self._children[pid]
                self.hung += 1
                os.kill(pid, signal.SIGUSR1)
                time.sleep(0.5)  # nothing tells when a process that hangs has written its stack
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        time.sleep(0.001)

    def __str__(self) -> str:
        failed = self.ended.total() - self.ended[_DONE] - self.ended[_REFUSED]
        return f"{self.hung} hung, {failed} failed, {self.ended[_REFUSED]} were refused the outbox"

    def is_well(self) -> bool:
        """Whether all children ended by themselves, and nearly all had the use of everything."""
        done, refused = self.ended[_DONE], self.ended[_REFUSED]
        return not self.hung and done + refused == self.ended.total() and refused <= done * _REFUSED_AT_MOST

    def finish(self) -> None:
        """Wait for all children."""
        while self._children:
            self.reap()


def again_and_again(work: Callable[[], None], stop: threading.Event, broken: list[str]) -> None:
    """Work until told to stop."""
    while not stop.is_set():
        try:
            work()
        except Exception:
            broken.append(traceback.format_exc())
            return


def main(folder: str, forks: int, look_up_ms: float) -> bool:
    """Run the storm; return whether everything worked."""
    warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks beside threads
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, force=True)
    SlowBackend.milliseconds = look_up_ms
    with EmbeddedBroker() as broker:
        broker.create_topic("storm")
        os.environ["AIRFLOW_CONN_WORKFLOW_EVENTS_DEFAULT"] = _CONNECTION % broker.bootstrap_servers
        os.environ["AIRFLOW__SECRETS__BACKEND"] = f"{__name__}.SlowBackend"
        storm = Storm(broker, folder)
        stop, broken = threading.Event(), list[str]()
        threads = [
            threading.Thread(target=again_and_again, args=(work, stop, broken))
            for work in (*storm.work, storm.look_up, storm.log)
        ]
        began = time.monotonic()
        storm.relay.start()
        for thread in threads:
            thread.start()
        forking = Forking(storm)
        for forked in range(1, forks + 1):
            forking.fork()
            if forked % 100 == 0:
                print(f"INFO: {forked} forks in {time.monotonic() - began:.0f} s: {forking}", file=sys.stderr)
        forking.finish()
        stop.set()
        for thread in threads:
            thread.join()
        relayed = storm.relay.stop(_PATIENCE_SECONDS)
    for trace in broken:
        print(trace, file=sys.stderr)
    print(
        f"{forks} forks in {time.monotonic() - began:.0f} s: {forking}, "
        f"{len(broken)} threads broke, relay ended: {relayed}"
    )
    return forking.is_well() and not broken and relayed


if __name__ == "__main__":
    assert AIRFLOW_HOME.is_dir()
    folder, forks, *look_up_ms = sys.argv[1:]
    sys.exit(not main(folder, int(forks), float(look_up_ms[0]) if look_up_ms else 10.0))
