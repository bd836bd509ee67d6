"""``@task.workflow_event``: what the function returns becomes the event's payload."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_workflow_events.compat import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_workflow_events.operators import PublishWorkflowEventOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class _WorkflowEventDecoratedOperator(DecoratedOperator, PublishWorkflowEventOperator):
    """Calls a function and publishes what it returns as ``payload.data``.

    What the function returns is data, not a template: it is not rendered.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in PublishWorkflowEventOperator.template_fields if name != "data"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    custom_operator_name: str = "@task.workflow_event"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _refuse_data(kwargs)
        # One event is one result; a dict must not be spread over several XComs.
        kwargs.pop("multiple_outputs", None)
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            multiple_outputs=False,
            **kwargs,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function and publish what it returned."""
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        result = self.python_callable(*self.op_args, **arguments)
        if inspect.iscoroutine(result):
            import asyncio

            result = asyncio.run(result)
        return self.publish(context, result)


def workflow_event_task(
    python_callable: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task that publishes what the function returns; used as ``@task.workflow_event(...)``.

    Args:
        python_callable: the function, which may be an ``async def``; it returns a mapping, a pydantic model,
            a dataclass or ``None``.
        **kwargs: the parameters of :class:`~airflow_workflow_events.operators.PublishWorkflowEventOperator`
            except ``data``, and those of every task.

    Raises:
        TypeError: ``data`` is given.
    """
    _refuse_data(kwargs)  # a mapped task makes its operator only when it runs
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_WorkflowEventDecoratedOperator,
        **kwargs,
    )


def _refuse_data(kwargs: Mapping[str, Any]) -> None:
    if "data" in kwargs:
        raise TypeError("@task.workflow_event takes no data: what the function returns is the data")
