"""The export: a list of rows of any length, read page by page as fast as the client takes it.

No more than a page is in memory. When it cannot go on (the database does not answer, the daemon stops), the connection is
reset: an export that ends in the ordinary way is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from starlette.types import Receive, Scope, Send

from gre_bridge import exports
from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.figure_limits import WAIT, FigureLimits
from gre_bridge.api.schemas.reports import ExportQuery
from gre_bridge.api.schemas.responses import errors
from gre_bridge.db.report_answers import ExportPage
from gre_bridge.errors import BridgeError

log = structlog.get_logger("gre.http")

PAGE_ROWS = 500
"""Rows of a page: read and decoded in a few milliseconds."""
STEP_ROWS = 100
"""Rows that are encoded before others get the loop."""

router = APIRouter(tags=["Reports"], dependencies=STAFF_PATHS)


class ExportStream(Response):
    """The answer of an export."""

    def __init__(
        self,
        read: Callable[[str | None], Awaitable[ExportPage]],
        limits: FigureLimits,
        query: ExportQuery,
    ) -> None:
        """`read` takes the cursor of a page; it raises Refused or TransientError."""
        days = "".join(f"-{at:%Y%m%d}" for at in (query.since, query.until) if at is not None)
        name = f"gre-{query.what}{days}.{query.format}"
        super().__init__(
            headers={
                "Cache-Control": "no-store",
                "Content-Type": exports.MEDIA_TYPES[query.format],
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        )
        del self.headers["content-length"]
        self._read = read
        self._limits = limits
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises as `read` while nothing is sent."""
        page = await self._read(None)
        async with self._limits.export():
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope.get("gre.head"):
                await send({"type": "http.response.body"})
                return
            sending = asyncio.create_task(self._send(page, send))
            gone = asyncio.create_task(_disconnected(receive))
            try:
                await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            except (BridgeError, OSError) as error:
                code = error.code if isinstance(error, BridgeError) else type(error).__name__
                log.warning("export_failed", code=code, request_id=scope["state"]["request_id"])
                _reset(scope)
            except asyncio.CancelledError:
                _reset(scope)  # the server stops, and this was the rest of the request
            except Exception:
                _reset(scope)
                raise
            finally:
                for task in (sending, gone):
                    task.cancel()
                await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, page: ExportPage, send: Send) -> None:
        what, form = self._query.what, self._query.format

        async def put(body: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        if head := exports.head(what, form):
            await put(head)
        while True:
            for start in range(0, len(page["rows"]), STEP_ROWS):
                await put(exports.encode(what, form, page["rows"][start : start + STEP_ROWS]))
                await asyncio.sleep(0)
            if page["next"] is None:
                break
            page = await self._read(page["next"])
        await put(b"", more=False)


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _reset(scope: Scope) -> None:
    """Have the client see that the answer is not whole, over any version of HTTP."""
    reset: Callable[[], None] | None = scope.get("state", {}).get("reset")
    if reset is not None:
        reset()


@router.get(
    "/api/gre-admin/export",
    summary="Export rows",
    response_class=Response,
    responses={
        200: {
            "description": "The rows, as a file; `text/csv` with a header. Only a whole export ends without an error of the connection.",
            "content": {
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        **errors(),
    },
)
async def export(query: Annotated[ExportQuery, Query()], request: Request, call: Authenticated) -> Response:
    """Sessions, messages, questions, events, ratings or assignments in the order of time, of any number. For admins.

    Texts that a spreadsheet would take for formulas get a leading apostrophe in CSV.
    """
    limits: FigureLimits = request.app.state.figure_limits
    times: dict[str, Any] = {
        name: None if at is None else at.isoformat()
        for name, at in (("since", query.since), ("until", query.until))
    }

    async def read(cursor: str | None) -> ExportPage:
        # Once it has begun, it waits for its turn however long that takes.
        async with limits.read(WAIT if cursor is None else None):
            return await call(
                lambda users, caller: users.export(
                    caller, query.what, cursor=cursor, limit=PAGE_ROWS, **times
                )
            )

    return ExportStream(read, limits, query)
