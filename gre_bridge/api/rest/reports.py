"""The endpoints of figures: reports, what their cells count, the desk at this moment, the check, a player's rating."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response

from gre_bridge.api.auth import AUTHENTICATED, STAFF_PATHS, Authenticated, AuthenticatedCall
from gre_bridge.api.figure_limits import FigureLimits
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.schemas.reports import (
    CellQuery,
    Checked,
    CheckQuery,
    CountedSessions,
    Live,
    RateSession,
    Report,
    ReportQuery,
)
from gre_bridge.api.schemas.responses import SessionChanged, errors
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.reports import ReportQuestion
from gre_bridge.db.users import UserDatabase

T = TypeVar("T")

router = APIRouter(tags=["Reports"], dependencies=STAFF_PATHS)
rating_router = APIRouter(tags=["Chat"], dependencies=AUTHENTICATED)


async def _read(
    request: Request, call: AuthenticatedCall, operation: Callable[[UserDatabase, Caller], Awaitable[T]]
) -> T:
    """Read in turn, and once: a repeat of what took too long would take as long again."""
    limits: FigureLimits = request.app.state.figure_limits
    async with limits.read():
        return await call(operation, repeat=False)


def _question(query: ReportQuery) -> ReportQuestion:
    return ReportQuestion(
        since=query.since.isoformat(), until=query.until.isoformat(), timezone=query.timezone, by=query.by,
        basis=query.basis, in_hours=query.in_hours,
    )  # fmt: skip


@router.get("/api/gre-admin/reports", summary="Count", response_model=Report, responses=errors())
async def report(query: Annotated[ReportQuery, Query()], request: Request, call: Authenticated) -> Response:
    """Sessions, messages, reply times, ratings: by hour, day, week, month or staff member, with the total. For staff."""
    found = await _read(request, call, lambda users, caller: users.report(caller, _question(query)))
    return JsonResponse({"success": True, **found})


@router.get(
    "/api/gre-admin/reports/sessions",
    summary="List what a figure counts",
    response_model=CountedSessions,
    responses=errors(),
)
async def report_sessions(
    query: Annotated[CellQuery, Query()], request: Request, call: Authenticated
) -> Response:
    """The sessions behind one cell of a report: as many as it says. For staff."""
    found = await _read(
        request,
        call,
        lambda users, caller: users.report_sessions(
            caller,
            _question(query),
            metric=query.metric,
            key=query.key,
            cursor=query.cursor,
            limit=query.limit,
        ),
    )
    return JsonResponse({"success": True, "items": found["items"], "next": found["next"]})


@router.get(
    "/api/gre-admin/reports/live", summary="The desk at this moment", response_model=Live, responses=errors()
)
async def report_live(call: Authenticated) -> Response:
    """Who is there and has how many sessions, how many players wait, and for how long. For staff."""
    found = await call(lambda users, caller: users.report_live(caller))
    return JsonResponse({"success": True, **found})


@router.get(
    "/api/gre-admin/reports/check", summary="Check the figures", response_model=Checked, responses=errors()
)
async def report_check(
    query: Annotated[CheckQuery, Query()], request: Request, call: Authenticated
) -> Response:
    """Count the sessions that changed in this time again, from their messages and events, and list what differs. For admins."""
    found = await _read(
        request,
        call,
        lambda users, caller: users.report_check(
            caller, query.since.isoformat(), query.until.isoformat(), cursor=query.cursor
        ),
    )
    return JsonResponse({"success": True, **found})


@rating_router.post(
    "/api/gre-chat/rate",
    summary="Rate a session",
    response_model=SessionChanged,
    responses=errors(404, 409, 413),
)
async def rate(body: RateSession, call: Authenticated) -> Response:
    """A player's rating of its closed session, once until it is reopened. The same again is no error."""
    found = await call(
        lambda users, caller: users.rate_session(
            caller, body.session_id, score=body.score, comment=body.comment
        )
    )
    return JsonResponse({"success": True, "session": found["session"]})
