"""Why a run or a task failed, and a run's conf: what may carry a secret leaves masked and capped."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from airflow_workflow_events.compat import mask_secret

import pytest
from airflow.sdk import DAG, DagRunState, TaskInstanceState, task, task_group
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

from airflow_workflow_events.lifecycle.failures import allowed_conf
from tests.unit.airflow_side.contexts import RUN_ID, dag_context, make_run, minimal_context, task_context
from tests.unit.airflow_side.lifecycle.test_translate import event_of


class Supervisor:
    """Answers what a task or a callback asks Airflow, as the process beside it does."""

    def __init__(self, states: dict[str, Any] | Exception) -> None:
        self._states = states
        self.asked: list[Any] = []

    def send(self, message: Any) -> Any:
        self.asked.append(message)
        if isinstance(self._states, Exception):
            raise self._states
        return TaskStatesResult(task_states=self._states)


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Supervisor]:
    """``supervised(states)``: a supervisor that answers with these states of tasks, or raises."""

    def supervised(states: dict[str, Any] | Exception) -> Supervisor:
        supervisor = Supervisor(states)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        return supervisor

    return supervised


def failed_run() -> dict[str, Any]:
    return dag_context("task_failure", make_run(state=DagRunState.FAILED))


def error_of(exception: BaseException | str) -> dict[str, Any]:
    found: dict[str, Any] = event_of(
        task_context(TaskInstanceState.FAILED, exception=exception)
    ).payload.data["error"]
    return found


def raised(message: str) -> Exception:
    """An exception with a stack trace that quotes its message."""

    def fail() -> None:
        raise RuntimeError(message)

    try:
        fail()
    except RuntimeError as error:
        return error
    raise AssertionError


def test_a_failed_run_names_all_its_failed_tasks(supervised: Callable[..., Supervisor]) -> None:
    supervisor = supervised(
        {
            RUN_ID: {
                "load": TaskInstanceState.FAILED,
                "check": "upstream_failed",
                "extract": "success",
                "count[1]": "failed",
                "later": None,
            }
        }
    )
    data = event_of(failed_run()).payload.data

    assert data["failed_tasks"] == ["check", "count[1]", "load"]
    assert data["error"]["message"] == "failed tasks: check, count[1], load"
    (asked,) = supervisor.asked
    assert isinstance(asked, GetTaskStates)
    assert (asked.dag_id, asked.run_ids) == ("daily_sales", [RUN_ID])


class Instances:
    """Instances of tasks in Airflow's database, asked as the execution API answers, one name for two."""

    def __init__(self, *instances: tuple[str, int, str]) -> None:
        self._instances = instances

    def get_task_states(
        self, _dag_id: str, *, run_ids: list[str], task_ids: list[str] | None = None
    ) -> dict[str, dict[str, str]]:
        (run_id,) = run_ids
        chosen = [one for one in self._instances if task_ids is None or one[0] in task_ids]
        return {run_id: {f"{task}_{index}" if index >= 0 else task: state for task, index, state in chosen}}


def dag_with_names_that_collide() -> DAG:
    with DAG("daily_sales", schedule=None) as dag:

        @task
        def load(part: int) -> None: ...

        @task
        def load_2() -> None: ...

        @task
        def plain() -> None: ...

        @task
        def plain_1() -> None: ...

        @task_group
        def group(part: int) -> None:
            load_2.override(task_id="inner")()

        load.expand(part=[0, 1, 2])
        group.expand(part=[0, 1])
        load_2()
        plain()
        plain_1()
    return dag


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([("load", 2, "failed"), ("load_2", -1, "success")], ["load[2]"]),
        ([("load_2", -1, "success"), ("load", 2, "failed")], ["load[2]"]),
        ([("load", 2, "success"), ("load_2", -1, "failed")], ["load_2"]),
        ([("load_2", -1, "failed"), ("load", 2, "success")], ["load_2"]),
        ([("load_2", -1, "failed"), ("load", 2, "upstream_failed")], ["load[2]", "load_2"]),
        (
            [("load", 1, "failed"), ("load", 0, "failed"), ("plain", -1, "failed")],
            ["load[0]", "load[1]", "plain"],
        ),
        ([("load", -1, "upstream_failed"), ("plain_1", -1, "failed")], ["load", "plain_1"]),
        ([("group.inner", 1, "failed"), ("group.inner", 0, "success")], ["group.inner[1]"]),
    ],
)
def test_failed_tasks_are_named_as_the_dag_has_them_also_where_names_collide(
    instances: list[tuple[str, int, str]], expected: list[str]
) -> None:
    context = {**failed_run(), "dag": dag_with_names_that_collide(), "ti": Instances(*instances)}

    assert event_of(context).payload.data["failed_tasks"] == expected


def test_a_supervisor_that_does_not_answer_costs_the_list_and_not_the_event() -> None:
    answered = threading.Event()
    context = {**failed_run(), "ti": SilentInstance(answered)}
    try:
        data = event_of(context, patience_seconds=0.2).payload.data
    finally:
        answered.set()

    assert data["failed_tasks"] is None
    assert data["error"]["message"] == "task_failure"


class SilentInstance:
    """A task instance whose supervisor is too busy to answer."""

    def __init__(self, answered: threading.Event) -> None:
        self._answered = answered

    def get_task_states(self, *_arguments: object, **_options: object) -> dict[str, object]:
        self._answered.wait(60)
        return {}


@pytest.mark.parametrize(
    "answer",
    [RuntimeError("supervisor is gone"), {}, {RUN_ID: {}}, {RUN_ID: None}, {RUN_ID: 7}],
    ids=str,
)
def test_a_run_whose_failed_tasks_nobody_tells_has_an_event_all_the_same(
    supervised: Callable[..., Supervisor], answer: Any
) -> None:
    supervised(answer)
    data = event_of(failed_run()).payload.data

    assert not data["failed_tasks"]
    assert data["error"]["message"] == "task_failure"


def test_a_run_in_a_process_without_a_supervisor_has_an_event_all_the_same() -> None:
    assert event_of(failed_run()).payload.data["failed_tasks"] is None


def test_only_a_failed_runs_tasks_are_asked_for(supervised: Callable[..., Supervisor]) -> None:
    supervisor = supervised({})
    event_of(dag_context())
    event_of(minimal_context("task_failure"))
    event_of(task_context(TaskInstanceState.FAILED, exception=ValueError("x")))

    assert supervisor.asked == []


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("password={}", "password=***"),
        ("PASSWORD: {}", "PASSWORD: ***"),
        ("{{'db_password': '{}'}}", "{'db_password': '***'}"),
        ('{{"api_key": "{}", "rows": 3}}', '{"api_key": "***", "rows": 3}'),
        ("?user=me&token={}&rows=3", "?user=me&token=***&rows=3"),
        ("Authorization: Bearer {}", "Authorization: Bearer ***"),
        ("Authorization: Basic {}", "Authorization: Basic ***"),
        ("Authorization: Token {}", "Authorization: Token ***"),
        ("Authorization: ApiKey {}", "Authorization: ApiKey ***"),
        ("password => {}", "password => ***"),
        ('secret = """{}"""', 'secret = """***"""'),
        ("AccountKey={};EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
        ("X-Amz-Signature={}&rows=3", "X-Amz-Signature=***&rows=3"),
        ("credential={}", "credential=***"),
        ("<password>{}</password>", "<password>***</password>"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA",
        ),
        ("postgres://app:hun/{}@db", "postgres://app:***@db"),
        ("'Authorization': 'Bearer {}'", "'Authorization': 'Bearer ***'"),
        ("postgresql://etl:{}@warehouse/sales", "postgresql://etl:***@warehouse/sales"),
        ("postgresql+psycopg2://etl:{}@warehouse:5432/sales", "postgresql+psycopg2://etl:***@warehouse"),
        ("redis://:{}@cache:6379/0", "redis://:***@cache:6379/0"),
        ("secret_key={};", "secret_key=***;"),
        ("--password {}", "--password ***"),
        ("aws_secret_access_key = {}", "aws_secret_access_key = ***"),
        (r"password='ab\'{}'", "password='***'"),
        (r'"password":"aa\"{}", "rows": 3', '"password":"***", "rows": 3'),
        (r'"password":"aa\\", "rows": 3, "token":"{}"', '"password":"***", "rows": 3, "token":"***"'),
        (r"{{\"password\":\"aa\\\"{}\", \"rows\": 3}}", r"{\"password\":\"***\", \"rows\": 3}"),
        ("password=b'{}', rows=3", "password=b'***', rows=3"),
        ('password=("{}"), rows=3', "password=***, rows=3"),
        ("password=SecretStr('{}'), rows=3", "password=***, rows=3"),
        ("password=ab(cd{})ef rows", "password=*** rows"),
        ('"db_password": ["a]", "{}"], "rows": 3', '"db_password": ***, "rows": 3'),
        ('"tokens": [\n  "a",\n  "{}"\n], "rows": 3', '"tokens": ***, "rows": 3'),
        ("('password', '{}', 3)", "('password', ***, 3)"),
        ("(b'authorization', b'Bearer {}')", "(b'authorization', ***)"),
        ("<password type='x'>{}</password>", "<password type='x'>***</password>"),
        ("<db_password><![CDATA[{}]]></db_password>", "<db_password><![CDATA[***</db_password>"),
        ("--password 'a b {}' --rows 3", "--password *** --rows 3"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,00\n\n{}\n-----END R",
            "-----BEGIN RSA PRIVATE KEY-----***-----END R",
        ),
        ("https://{}@github.com/x", "https://***@github.com/x"),
        ("https://{}:@github.com/x", "https://***:@github.com/x"),
        ("postgres://u:p@{}@db,http://w:80", "postgres://u:***@db,http://w:80"),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_message_and_stack_trace(message: str, masked: str) -> None:
    secret = secrets.token_hex(10)
    error = error_of(raised(f"could not log in: {message.format(secret)} (3 tries)"))

    assert secret not in str(error)
    assert masked in error["message"]
    assert "could not log in" in error["message"]
    assert masked in error["stack_trace"]


def test_a_private_key_without_an_end_is_masked_to_the_end_of_the_text() -> None:
    error = error_of("-----BEGIN PRIVATE KEY-----\nDEK-Info: AES\n\nsesame+open")

    assert error["message"] == "-----BEGIN PRIVATE KEY-----***"


def test_a_bracket_left_open_does_not_take_the_rest_of_a_stack_trace_along() -> None:
    error = error_of("token = make(\nFile 'x.py', line 3\nLookupError: no rows")

    assert error["message"] == "token = ***\nFile 'x.py', line 3\nLookupError: no rows"


def test_what_airflow_knows_to_be_a_secret_is_masked_wherever_it_stands() -> None:
    secret = secrets.token_hex(10)
    mask_secret(secret)
    exception = raised(f"no such row: x{secret}y")
    exception.__cause__ = KeyError(secret)
    error = error_of(exception)

    assert error["message"] == "no such row: x***y"
    assert secret not in error["stack_trace"]
    assert "KeyError: '***'" in error["stack_trace"]


def test_an_error_given_as_text_is_masked_as_well() -> None:
    assert error_of("password=sesame failed") == {
        "type": None,
        "message": "password=*** failed",
        "stack_trace": None,
    }


@pytest.mark.parametrize(
    "harmless",
    ["no rows at https://warehouse.example/sales?day=1", "step 3: ok", "user alice@example.com is unknown"],
)
def test_what_is_no_secret_is_left_alone(harmless: str) -> None:
    assert error_of(raised(harmless))["message"] == harmless


def test_a_long_message_and_stack_trace_keep_their_beginning_and_their_end() -> None:
    error = error_of(raised("begin" + "x" * 100_000 + "end"))

    assert len(error["message"]) < 4_100
    assert error["message"].startswith("begin")
    assert error["message"].endswith("end")
    assert "...[shortened]..." in error["message"]
    assert len(error["stack_trace"]) < 16_100
    assert error["stack_trace"].startswith("Traceback")


def test_a_secret_is_masked_before_a_long_message_is_cut_in_two() -> None:
    secret = secrets.token_hex(40)
    message = "x" * 1_300 + f" password={secret} " + "y" * 9_000

    error = error_of(raised(message))
    assert not any(secret[start : start + 8] in str(error) for start in range(len(secret) - 8))


def test_no_half_of_a_secret_shows_where_masking_shortens_a_text_that_was_cut_before() -> None:
    secret = secrets.token_hex(1_000)
    message = "begin " + " ".join(f"password={secret}" for _ in range(40)) + " end"

    error = error_of(raised(message))
    assert not any(secret[start : start + 8] in str(error) for start in range(len(secret) - 8))
    assert "...[shortened]..." in error["message"]


@pytest.mark.parametrize(
    "part",
    [
        "password",
        "a.",
        "-",
        "token=",
        "--token ",
        "x://y:",
        'password"',
        "secret  ",
        "bearer a",
        "http://worker-17:8080,",
        "://",
        "://a@",
        "password='\\",
        'password=["',
        "password=(\n",
        "'password','",
        "<token ",
        "<token>",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_huge_message_takes_no_quadratic_time_to_mask(part: str) -> None:
    # A stack trace is shortened to 64,000 characters before it is masked, which takes 0.1 s at most; in
    # quadratic time it took from 1 s up. Another thread's time is not counted.
    exception = ValueError(part * (400_000 // len(part)))
    started = time.thread_time()
    error_of(exception)

    assert time.thread_time() - started < 1


def test_an_exception_without_a_message_has_none() -> None:
    assert error_of(ValueError()) == {
        "type": "ValueError",
        "message": None,
        "stack_trace": "ValueError\n",
    }


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class InterruptingError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class UnnotableError(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name == "__notes__":
            raise ZeroDivisionError
        return super().__getattribute__(name)


def in_a_thread(exception: Any) -> dict[str, Any]:
    """The error of an event that is built as callbacks build it; in the main thread an interrupt is one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(error_of, exception).result()


def odd_syntax_error(*place: Any) -> SyntaxError:
    return SyntaxError("the message", cast("Any", place))


@pytest.mark.parametrize("exception", [UnspeakableError(), InterruptingError()])
def test_an_exception_that_cannot_be_put_into_words_has_its_type_and_says_so(exception: Exception) -> None:
    error = in_a_thread(exception)

    assert error["type"].endswith(type(exception).__name__)
    assert error["message"].startswith("(the error's text cannot be shown")


@pytest.mark.parametrize(
    "exception",
    [
        UnnotableError("the message"),
        odd_syntax_error("f.py", 1, "abc", "text"),
        odd_syntax_error(5, "x", 7, object()),
        odd_syntax_error("f.py", 1, 10**9, "text", 1, -5),
    ],
)
def test_an_exception_whose_trace_cannot_be_written_costs_no_event(exception: Exception) -> None:
    def task_of_a_user() -> None:
        raise exception

    try:
        task_of_a_user()
    except Exception as error:
        found = in_a_thread(error)

    assert "the message" in found["message"]
    assert type(exception).__name__ in found["stack_trace"]
    assert "in task_of_a_user" in found["stack_trace"]


def test_an_interrupt_in_the_main_thread_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        error_of(InterruptingError())


def test_a_file_name_that_is_not_utf_8_costs_no_event() -> None:
    error = error_of(FileNotFoundError(2, "No such file", b"/data/\xff.csv".decode(errors="surrogateescape")))

    assert error["message"] == "[Errno 2] No such file: '/data/\\udcff.csv'"


def test_a_message_with_half_a_character_costs_no_event() -> None:
    assert error_of(ValueError("\udcff"))["message"] == "\\udcff"


def test_an_exception_that_ends_the_process_is_told_too() -> None:
    assert error_of(SystemExit(3))["type"] == "SystemExit"


CONF = {"region": "eu", "password": "sesame-open", "db": {"token": "sesame-open", "host": "h"}, "rows": 3}


@pytest.mark.parametrize(
    ("keys", "conf"),
    [
        ("", None),
        ("nothing", None),
        ("region, rows", {"region": "eu", "rows": 3}),
        ("password,db", {"password": "***", "db": {"token": "***", "host": "h"}}),
    ],
)
def test_only_the_allowed_keys_of_a_runs_conf_leave_and_masked(
    set_options: Callable[..., None], keys: str, conf: Any
) -> None:
    set_options(conf_keys=keys)

    assert event_of(dag_context(run=make_run(conf=CONF))).payload.data["conf"] == conf


@pytest.mark.parametrize("conf", [None, {}, [], "text", 7])
def test_a_conf_that_is_no_object_does_not_leave(conf: Any) -> None:
    assert allowed_conf(conf, frozenset({"region"})) is None


def test_a_known_secret_inside_an_allowed_key_is_masked(set_options: Callable[..., None]) -> None:
    secret = secrets.token_hex(10)
    mask_secret(secret)
    set_options(conf_keys="query")
    run = make_run(conf={"query": f"select '{secret}'"})

    assert event_of(dag_context(run=run)).payload.data["conf"] == {"query": "select '***'"}
