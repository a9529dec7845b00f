"""The REST routes over a `Control`: thin, one call each; errors become JSON `{"error": sentence}`.

GET  /status                       POST /reload                GET /metrics, /traffic
GET  /machines                     POST /machines
GET  /machines/{key}               DELETE /machines/{key}      GET /machines/{key}/timeline
GET  /jobs                         POST /jobs
GET  /jobs/{id}                    POST /jobs/{id}/cancel      POST /jobs/{id}/retry
GET  /images                       GET/DELETE /images/{key}
GET  /sessions                     GET /sessions/{key}         POST /sessions/{key}/start
GET  /events                       GET /schema
"""

from importlib.metadata import version
from typing import Annotated, Any

import structlog
from litestar import Litestar, MediaType, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, JSONBody, Parameter
from litestar.response import Stream
from litestar.status_codes import (
    HTTP_200_OK,
    HTTP_400_BAD_REQUEST,
    HTTP_404_NOT_FOUND,
    HTTP_409_CONFLICT,
    HTTP_500_INTERNAL_SERVER_ERROR,
)

from pxed.api.control import Control, Image, NewJob, NewMachine, Reloaded, Status
from pxed.api.events import EVENT_STREAM, JSON_LINES, Closing, stream
from pxed.errors import NotFoundError, OperatorError, RefusedError
from pxed.types import Event, ImageSession, Job, Machine, Traffic

__all__ = ["create_app"]

# A snapshot's transfers: more than anybody reads, few enough to be told in some milliseconds.
MOST_TRANSFERS = 1024

AnyRequest = Request[Any, Any, State]


def _control(state: State) -> Control:
    control: Control = state.control
    return control


@get("/status", tags=["server"])
async def get_status(state: State) -> Status:
    """The server at a glance: services, counters, what an operator should look at."""
    return await _control(state).status()


@get("/metrics", tags=["server"])
async def get_metrics(state: State) -> Response[bytes]:
    """The metrics, for Prometheus."""
    text, media_type = await _control(state).metrics()
    return Response(text, media_type=media_type)


@get("/traffic", tags=["server"])
async def get_traffic(
    state: State, limit: Annotated[int, Parameter(ge=0, le=MOST_TRANSFERS)] = MOST_TRANSFERS
) -> Traffic:
    """What moves at this moment: bytes so far, at most `limit` of the transfers that run, machines on their way."""
    return await _control(state).traffic(limit)


@post("/reload", tags=["server"], status_code=HTTP_200_OK)
async def reload(state: State) -> Reloaded:
    """Read the configuration file again. A mistake in it leaves everything as it is."""
    return await _control(state).reload()


@get("/machines", tags=["machines"])
async def list_machines(state: State) -> list[Machine]:
    """All machines, those only seen on the wire included (`known` is false)."""
    return await _control(state).machines()


@post("/machines", tags=["machines"])
async def add_machine(data: JSONBody[NewMachine], state: State) -> Machine:
    """Announce a machine by MAC, SMBIOS UUID or serial."""
    return await _control(state).add_machine(data)


@get("/machines/{key:str}", tags=["machines"])
async def get_machine(key: FromPath[str], state: State) -> Machine:
    """One machine by id, MAC, UUID or name."""
    return await _control(state).machine(key)


@delete("/machines/{key:str}", tags=["machines"])
async def remove_machine(key: FromPath[str], state: State) -> None:
    """Forget a machine."""
    await _control(state).remove_machine(key)


@get("/machines/{key:str}/timeline", tags=["machines"])
async def get_timeline(key: FromPath[str], state: State) -> list[Event]:
    """What the machine did and what was decided about it, oldest first."""
    return await _control(state).timeline(key)


@get("/jobs", tags=["jobs"])
async def list_jobs(state: State) -> list[Job]:
    """All jobs, oldest first."""
    return await _control(state).jobs()


@post("/jobs", tags=["jobs"])
async def create_job(data: JSONBody[NewJob], state: State) -> Job:
    """Restore an image on a machine at its next network boot."""
    return await _control(state).create_job(data)


@get("/jobs/{job_id:int}", tags=["jobs"])
async def get_job(job_id: FromPath[int], state: State) -> Job:
    """One job."""
    return await _control(state).job(job_id)


@post("/jobs/{job_id:int}/cancel", tags=["jobs"], status_code=HTTP_200_OK)
async def cancel_job(job_id: FromPath[int], state: State) -> Job:
    """Cancel an unfinished job."""
    return await _control(state).cancel_job(job_id)


@post("/jobs/{job_id:int}/retry", tags=["jobs"], status_code=HTTP_200_OK)
async def retry_job(job_id: FromPath[int], state: State) -> Job:
    """Make a failed, cancelled or expired job pending again."""
    return await _control(state).retry_job(job_id)


@get("/images", tags=["images"])
async def list_images(state: State) -> list[Image]:
    """All images."""
    return await _control(state).images()


@get("/images/{key:str}", tags=["images"])
async def get_image(key: FromPath[str], state: State) -> Image:
    """One image by id or name."""
    return await _control(state).image(key)


@delete("/images/{key:str}", tags=["images"])
async def remove_image(key: FromPath[str], state: State) -> None:
    """Delete an image that no unfinished job wants."""
    await _control(state).remove_image(key)


@get("/sessions", tags=["sessions"])
async def list_sessions(state: State) -> list[ImageSession]:
    """The multicast sessions that are open, with their receivers, and the last ones that have ended."""
    return await _control(state).sessions()


@get("/sessions/{key:str}", tags=["sessions"])
async def get_session(key: FromPath[str], state: State) -> ImageSession:
    """One session by the beginning of its id (409: of several), or the newest of an image by the image's name."""
    return await _control(state).session(key)


@post("/sessions/{key:str}/start", tags=["sessions"], status_code=HTTP_200_OK)
async def start_session(key: FromPath[str], state: State) -> ImageSession:
    """Let a session begin that waits for its start."""
    return await _control(state).start_session(key)


@get("/events", tags=["server"])
async def get_events(request: AnyRequest, state: State) -> Stream:
    """Everything that happens from now on, live: a `Change` a line, `{}` first and whenever it is quiet for long.

    JSON lines, or server-sent events for a client that accepts `text/event-stream`.
    """
    as_events = EVENT_STREAM in request.headers.get("accept", "")
    return Stream(
        stream(_control(state), state.closing, as_events=as_events),
        media_type=EVENT_STREAM if as_events else JSON_LINES,
        headers={"Cache-Control": "no-store"},
    )


def create_app(control: Control, closing: Closing | None = None) -> Litestar:
    """The application over `control`. Setting `closing` ends the live streams."""
    return Litestar(
        route_handlers=[
            *(get_status, get_metrics, get_traffic, reload, get_events),
            *(list_machines, add_machine, get_machine, remove_machine, get_timeline),
            *(list_jobs, create_job, get_job, cancel_job, retry_job),
            *(list_images, get_image, remove_image),
            *(list_sessions, get_session, start_session),
        ],
        state=State({"control": control, "closing": closing if closing is not None else Closing()}),
        exception_handlers={
            OperatorError: _operator_error,
            HTTPException: _http_error,
            Exception: _bug,
        },
        openapi_config=OpenAPIConfig(
            title="pxed",
            version=version("pxed"),
            description="Network preboot and imaging: machines, jobs, images.",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            use_handler_docstrings=True,
        ),
        logging_config=None,
        debug=False,
    )


def _json_error(status: int, text: str, **more: Any) -> Response[dict[str, Any]]:
    return Response({"error": text, **more}, status_code=status, media_type=MediaType.JSON)


def _operator_error(request: AnyRequest, error: OperatorError) -> Response[dict[str, Any]]:
    """The person who asked can mend it."""
    if isinstance(error, NotFoundError):
        return _json_error(HTTP_404_NOT_FOUND, str(error))
    if isinstance(error, RefusedError):
        return _json_error(HTTP_409_CONFLICT, str(error))
    return _json_error(HTTP_400_BAD_REQUEST, str(error))


def _http_error(request: AnyRequest, error: HTTPException) -> Response[dict[str, Any]]:
    """Litestar refused the request: no such path, a body that does not fit."""
    if error.status_code == HTTP_404_NOT_FOUND:
        return _json_error(error.status_code, f"There is no {request.method} {request.url.path} here.")
    details = [d for d in error.extra or () if isinstance(d, dict) and "message" in d]
    # "data" is the body as a whole, a name of our code that means nothing to the caller.
    said = [f"{d['key']}: {d['message']}" if d.get("key", "data") != "data" else d["message"] for d in details]
    return _json_error(error.status_code, "; ".join(said) or error.detail)


def _bug(request: AnyRequest, error: Exception) -> Response[dict[str, Any]]:
    """Ours: the log has the traceback, the caller hears that it is not their fault."""
    structlog.get_logger().error("admin request failed", path=request.url.path, exc_info=error)
    return _json_error(
        HTTP_500_INTERNAL_SERVER_ERROR,
        f"The server failed on this request ({type(error).__name__}: {error}); see its log.",
    )
