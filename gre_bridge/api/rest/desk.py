"""The endpoints of the staff's desk: assignment by hand, staff and their load, settings, opening hours.

The rules are the database's: who may have a session, and which values a setting may have.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.schemas.desk import (
    CreateHours,
    Deleted,
    DeskSettings,
    HoursList,
    HoursRead,
    ReleaseSession,
    ReplaceHours,
    SessionAssigned,
    SettingsRead,
    StaffChanged,
    StaffList,
    StaffSettings,
    TakeSession,
    TransferSession,
)
from gre_bridge.api.schemas.requests import SessionQueue, Text
from gre_bridge.api.schemas.responses import Queue, errors
from gre_bridge.db.answers import StaffMember
from gre_bridge.db.desk_answers import AssignedSession, Hours
from gre_bridge.errors import Refused

router = APIRouter(tags=["Desk"], dependencies=STAFF_PATHS)

StaffId = Annotated[Text, Path(examples=["s1"])]
HoursName = Annotated[Text, Path(examples=["desk"])]


def _assigned(answer: AssignedSession) -> Response:
    return JsonResponse({"success": True, **answer})


def _staff(row: StaffMember) -> dict[str, Any]:
    """Return a staff member in the spelling of the portals."""
    return {
        "staffId": row["staff_id"],
        "displayName": row["display_name"],
        "role": row["role"],
        "status": row["status"],
        "active": True,
        "openSessions": row["open_sessions"],
        "takesSessions": row["takes_sessions"],
        "maxSessions": row["max_sessions"],
    }


def _hours(hours: Hours, status: int = 200) -> Response:
    return JsonResponse({"success": True, "hours": hours}, status)


@router.get(
    "/api/gre-admin/queue",
    summary="List sessions as a desk works on them",
    response_model=Queue,
    responses=errors(),
)
async def queue(query: Annotated[SessionQueue, Query()], call: Authenticated) -> Response:
    """Those that wait for an answer, the longest waiting first, then those that are answered, then closed ones.

    Of the last two the latest first. A session that moves while one is paging may be met twice or not at all.
    """
    page = await call(
        lambda users, caller: users.queue(
            caller,
            status=query.status,
            assigned=query.assigned,
            player=query.player,
            limit=query.limit,
            cursor=query.cursor,
        )
    )
    return JsonResponse({"success": True, "sessions": page["sessions"], "next": page["next"]})


@router.post(
    "/api/gre-admin/take",
    summary="Take a session",
    response_model=SessionAssigned,
    responses=errors(404, 409, 413),
)
async def take(body: TakeSession, call: Authenticated) -> Response:
    """Assign it to the caller, if it is nobody's, the caller's, or `fromStaffId`'s; else 409 `session_taken`."""
    return _assigned(
        await call(
            lambda users, caller: users.take_session(caller, body.session_id, from_staff=body.from_staff_id)
        )
    )


@router.post(
    "/api/gre-admin/release",
    summary="Return a session to the queue",
    response_model=SessionAssigned,
    responses=errors(404, 409, 413),
)
async def release(body: ReleaseSession, call: Authenticated) -> Response:
    """Assign the caller's session to nobody. It keeps its place, by the time since which its player waits."""
    return _assigned(await call(lambda users, caller: users.release_session(caller, body.session_id)))


@router.post(
    "/api/gre-admin/transfer",
    summary="Transfer a session",
    response_model=SessionAssigned,
    responses=errors(404, 409, 413),
)
async def transfer(body: TransferSession, call: Authenticated) -> Response:
    """Assign it to a colleague, or to nobody, together with a note."""
    # Not retried: without an id the note would be stored twice, and a colleague may have taken the session in between.
    from_staff = (body.from_staff_id or "") if "from_staff_id" in body.model_fields_set else None
    return _assigned(
        await call(
            lambda users, caller: users.transfer_session(
                caller,
                body.session_id,
                to_staff=body.to_staff_id,
                note=body.note,
                after_seq=body.after_seq,
                from_staff=from_staff,
                note_id=body.note_id,
            ),
            repeat=False,
        )
    )


@router.get("/api/gre-admin/staff", summary="List the staff", response_model=StaffList, responses=errors())
async def staff(call: Authenticated) -> Response:
    """Active staff by name, who of them is there, and their load."""
    found = await call(lambda users, caller: users.staff(caller))
    return JsonResponse({"success": True, "staff": [_staff(item) for item in found]})


@router.put(
    "/api/gre-admin/staff/{staff_id}",
    summary="Set how many sessions a staff member gets",
    response_model=StaffChanged,
    responses=errors(404, 413),
)
async def set_staff(staff_id: StaffId, body: StaffSettings, call: Authenticated) -> Response:
    """For automatic assignment. For admins."""
    changes = body.model_dump(exclude_unset=True)
    return JsonResponse(
        {
            "success": True,
            "staff": _staff(await call(lambda users, caller: users.set_staff(caller, staff_id, changes))),
        }
    )


@router.get(
    "/api/gre-admin/settings",
    summary="Read the desk's settings",
    response_model=SettingsRead,
    responses=errors(),
)
async def settings(call: Authenticated) -> Response:
    """Read all of them."""
    return JsonResponse(
        {"success": True, "settings": await call(lambda users, caller: users.settings(caller))}
    )


@router.put(
    "/api/gre-admin/settings",
    summary="Change the desk's settings",
    response_model=SettingsRead,
    responses=errors(404, 413),
)
async def set_settings(body: DeskSettings, call: Authenticated) -> Response:
    """Change those that are given; unlike elsewhere, a key that is no setting is refused. For admins."""
    changes = body.model_dump(exclude_unset=True)
    return JsonResponse(
        {"success": True, "settings": await call(lambda users, caller: users.set_settings(caller, changes))}
    )


@router.get(
    "/api/gre-admin/hours", summary="List opening hours", response_model=HoursList, responses=errors()
)
async def list_hours(call: Authenticated) -> Response:
    """By name."""
    return JsonResponse({"success": True, "hours": await call(lambda users, caller: users.hours(caller))})


@router.post(
    "/api/gre-admin/hours",
    summary="Create opening hours",
    status_code=201,
    response_model=HoursRead,
    responses=errors(409, 413),
)
async def create_hours(body: CreateHours, call: Authenticated) -> Response:
    """Settings and rules refer to them by name. For admins."""
    # Not retried: the second answer would be 409.
    created = await call(
        lambda users, caller: users.set_hours(caller, body.name, _entries(body), new=True), repeat=False
    )
    return _hours(created, 201)


@router.get(
    "/api/gre-admin/hours/{name}",
    summary="Read opening hours",
    response_model=HoursRead,
    responses=errors(404),
)
async def read_hours(name: HoursName, call: Authenticated) -> Response:
    """Those with this name."""
    return _hours(await call(lambda users, caller: users.hours_named(caller, name)))


@router.put(
    "/api/gre-admin/hours/{name}",
    summary="Replace opening hours",
    response_model=HoursRead,
    responses=errors(404, 409, 413),
)
async def replace_hours(name: HoursName, body: ReplaceHours, call: Authenticated) -> Response:
    """Replace the entries from today on. Those of days that are over stay: what was counted stays counted. For admins."""
    if body.name not in (None, name):
        raise Refused(400, "hours_invalid", "name must be the one in the path")
    return _hours(await call(lambda users, caller: users.set_hours(caller, name, _entries(body), new=False)))


@router.delete(
    "/api/gre-admin/hours/{name}",
    summary="Delete opening hours",
    response_model=Deleted,
    responses=errors(404, 409),
)
async def delete_hours(name: HoursName, call: Authenticated) -> Response:
    """Refused (`hours_in_use`) while a setting refers to them. For admins."""
    # Not retried: the second answer would be 404.
    await call(lambda users, caller: users.delete_hours(caller, name), repeat=False)
    return JsonResponse({"success": True})


def _entries(body: ReplaceHours) -> dict[str, Any]:
    return body.model_dump(include={"timezone", "week", "dates"})
