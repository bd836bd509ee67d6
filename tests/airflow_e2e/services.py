"""A service outside of Airflow that publishes events: FastAPI with the producer for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from airflow_workflow_events import (
    AsyncWorkflowEventProducer,
    EventSource,
    EventType,
    WorkflowEvent,
    WorkflowEventMetadata,
    WorkflowEventPayload,
)

WORKFLOW_ID = "order_import"


def order_service(bootstrap_servers: str) -> FastAPI:
    """An application that imports orders on request, and says how that went."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncWorkflowEventProducer(bootstrap_servers=bootstrap_servers) as producer:
            app.state.producer = producer
            yield

    app = FastAPI(lifespan=lifespan)

    async def publish(event_type: str, workflow_run_id: str, data: dict[str, object]) -> dict[str, object]:
        event = WorkflowEvent(
            event_type=event_type,
            source=EventSource.FASTAPI,
            workflow_id=WORKFLOW_ID,
            workflow_run_id=workflow_run_id,
            payload=WorkflowEventPayload(data=data),
            metadata=WorkflowEventMetadata(environment="prod"),
        )
        published = await app.state.producer.publish_event(event, timeout=30)
        return {"published": published, "event_id": event.event_id}

    @app.post("/imports/{workflow_run_id}")
    async def finish(workflow_run_id: str, rows: int) -> dict[str, object]:
        return await publish("orders.imported", workflow_run_id, {"rows": rows})

    @app.post("/imports/{workflow_run_id}/failure")
    async def fail(workflow_run_id: str, reason: str) -> dict[str, object]:
        error = {"type": "ImportError", "message": reason}
        return await publish(EventType.WORKFLOW_FAILED, workflow_run_id, {"error": error})

    return app
