"""PostgREST 14.5 as the bridge and the portals use it: an ASGI app that is mounted at /rest/v1.

A request becomes one SQL statement in one transaction, under the caller's role, claims and time-outs, and
its row becomes the answer. Rules are PostgreSQL's: nothing here knows the project's tables or functions.
What PostgREST can and this cannot is refused with 501; it never guesses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final, cast

import orjson
import psycopg_pool

from gre_bridge.devstack.jwt import JwtError, verify
from gre_bridge.devstack.postgrest.catalog import Catalog, Routine
from gre_bridge.devstack.postgrest.database import Database, Row, Transaction, open_pool
from gre_bridge.devstack.postgrest.errors import ServerError, bad_range, left_out
from gre_bridge.devstack.postgrest.query import parse
from gre_bridge.devstack.postgrest.query_tree import Query
from gre_bridge.devstack.postgrest.request import Answer, Receive, Request, Scope, content_range, cors
from gre_bridge.devstack.postgrest.sql import Statement, ident
from gre_bridge.devstack.postgrest.write import Write, exactly_one

__all__ = ["PostgREST", "open_pool"]

_NO_KEY: Final = orjson.dumps(
    {
        "message": "No API key found in request",
        "hint": "No `apikey` request header or url param was found.",
    }
)
_MEDIA: Final = {"object": "application/vnd.pgrst.object+json", "csv": "text/csv"}


class PostgREST:
    """The face as a whole: `start`, serve as an ASGI app, `stop`."""

    def __init__(
        self,
        *,
        jwt_secret: str,
        pool: psycopg_pool.AsyncConnectionPool[Any] | None = None,
        dsn: str | None = None,
        schemas: tuple[str, ...] = ("public",),
        extra_search_path: tuple[str, ...] = ("public", "extensions"),
        max_rows: int | None = 1000,
        anon_role: str = "anon",
        require_apikey: bool = False,
        acquire_timeout: float = 10.0,
        request_timeout: float = 60.0,
    ) -> None:
        """Give either `pool`, an open one whose connections log in as `authenticator`, or `dsn`, to own one.

        Times are in seconds: to wait for a connection, and for the whole of a request. `require_apikey`
        refuses what Supabase's gateway would.
        """
        self._own_pool = None if pool else open_pool(dsn or "")
        self._database = Database(
            pool=pool or cast("Any", self._own_pool),
            schemas=schemas,
            acquire_timeout=acquire_timeout,
            request_timeout=request_timeout,
        )
        self._secret = jwt_secret
        self._schemas = schemas
        self._max_rows = max_rows
        self._anon = anon_role
        self._require_apikey = require_apikey
        self._paths = {s: ", ".join(ident(name) for name in (s, *extra_search_path)) for s in schemas}

    async def start(self) -> None:
        """Load the schema cache and follow `notify pgrst`; raises TimeoutError without a database."""
        if self._own_pool:
            await self._own_pool.open()
        await self._database.start()

    async def reload(self) -> None:
        """Load the schema cache and return when it is there, for who cannot wait for `notify pgrst` to be followed."""
        await self._database.reload()

    async def stop(self) -> None:
        """Finish the transactions under way, within five seconds, and stop."""
        await self._database.stop()
        if self._own_pool:
            await self._own_pool.close()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError(f"PostgREST speaks HTTP only, not {scope['type']}")
        request = Request(scope["method"], "/", "", {}, b"")
        try:
            request = await Request.read(scope, receive)
            answer = await self._answer(request, receive)
        except ServerError as error:
            media = ("content-type", "application/json; charset=utf-8")
            proxy = ("proxy-status", f"PostgREST; error={error.code}")
            answer = Answer(error.status, [media, proxy, *error.headers], error.body())
        if scope["method"] == "HEAD" or answer.status in (204, 304):
            answer.body = b""
        else:
            answer.headers.append(("content-length", str(len(answer.body))))
        headers = [(name.encode("latin-1"), _one_line(text)) for name, text in cors(request, answer.headers)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, request: Request, receive: Receive) -> Answer:
        if request.method == "OPTIONS":
            return Answer(200, [("allow", "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE")])
        if self._require_apikey and not {"apikey", "authorization"} & request.headers.keys():
            pairs = request.query_string.split("&")
            if not any(pair.startswith("apikey=") for pair in pairs):
                return Answer(401, [("content-type", "application/json; charset=utf-8")], _NO_KEY)
            request.query_string = "&".join(pair for pair in pairs if not pair.startswith("apikey="))
        role, claims = self._caller(request)
        catalog = self._database.catalog
        parts = request.path.strip("/").split("/")
        if parts == [""]:
            raise ServerError(404, "PGRST126", "Root endpoint metadata is disabled")
        if len(parts) > 2 or (len(parts) == 2 and parts[0] != "rpc"):
            raise ServerError(404, "PGRST125", "Invalid path specified in request URL")
        transact = partial(self._transact, request, receive, catalog, role, claims)
        if len(parts) == 2:
            return await self._rpc(request, catalog, parts[1], transact)
        if request.reads:
            return await self._read(request, catalog, parts[0], transact)
        return await self._write(request, catalog, parts[0], transact)

    def _caller(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The role and claims of the bearer token; without one, or without a role claim, the anonymous role."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        claims: dict[str, Any] = {}
        if scheme.lower() == "bearer":
            try:
                claims = dict(verify(token.strip(), self._secret))
            except JwtError as error:
                challenge = f'Bearer error="invalid_token", error_description="{error.message}"'
                headers = (("www-authenticate", challenge),)
                raise ServerError(
                    401, error.code, error.message, details=error.details, headers=headers
                ) from None
        role = claims.setdefault("role", self._anon)
        return role if isinstance(role, str) else orjson.dumps(role).decode(), claims

    async def _transact(
        self, request: Request, receive: Receive, catalog: Catalog, role: str, claims: dict[str, Any],
        statement: Statement, *, read_only: bool, routine: Routine | None = None,
        verdict: Callable[[Row], None] | None = None,
    ) -> Row:  # fmt: skip
        """Run the statement with the settings that PostgREST gives a transaction."""
        settings = {"search_path": self._paths[request.schema(self._schemas)]}
        # Before the role: what may be set is the login role's right, not the caller's.
        settings.update(catalog.role_settings.get(role, ()))
        settings["role"] = role
        settings["request.jwt.claims"] = orjson.dumps(claims, option=orjson.OPT_SORT_KEYS).decode()
        settings["request.method"] = request.method
        settings["request.path"] = request.path
        settings["request.headers"] = orjson.dumps(request.headers).decode()
        if routine:
            settings.update(routine.settings)
        if read_only:
            settings["transaction_read_only"] = "on"
        transaction = Transaction(
            orjson.dumps(settings).decode(), statement, anonymous=role == self._anon, cap=self._max_rows or 0,
            verdict=verdict,
        )  # fmt: skip
        return await self._database.run(transaction, partial(_disconnected, receive))

    async def _read(self, request: Request, catalog: Catalog, name: str, transact: Any) -> Answer:
        table = catalog.table(request.schema(self._schemas), name)
        query = parse(request.query_string)
        request.narrow(query.root)
        statement = Statement(catalog, shape=request.shape, max_rows=self._max_rows)
        statement.read(table, query.root, count=request.prefer.get("count"))
        row = await transact(statement, read_only=True)
        return self._page(request, query, row)

    def _page(self, request: Request, query: Query, row: Row, *, void: bool = False) -> Answer:
        """The answer to a read or a call: what was counted decides between 200, 206 and 416."""
        total, shown, body = row[:3]
        low = query.root.offset
        headers = content_range(low, low + shown - 1, total) + request.applied("count")
        if total is not None and low > total:
            details = f"An offset of {low} was requested, but there are only {total} rows."
            error = bad_range(details)
            return Answer(416, [("content-type", "application/json; charset=utf-8"), *headers], error.body())
        if request.shape == "object":
            exactly_one(row)
        status = 204 if void else 206 if total is not None and shown < total else 200
        return self._finish(request, row, Answer(status, headers, body))

    async def _write(self, request: Request, catalog: Catalog, name: str, transact: Any) -> Answer:
        table = catalog.table(request.schema(self._schemas), name)
        write = Write(request, catalog, table, parse(request.query_string))
        row = await transact(write.statement(), read_only=False, verdict=write.verdict)
        return self._finish(request, row, write.answer(row))

    async def _rpc(self, request: Request, catalog: Catalog, name: str, transact: Any) -> Answer:
        if request.method not in ("GET", "HEAD", "POST"):
            raise ServerError(405, "PGRST101", f"Cannot use the {request.method} method on RPC")
        query = parse(request.query_string, call=request.reads)
        body: Any
        if request.reads:
            body, array = _arguments(catalog, request.schema(self._schemas), name, query), False
            names = list(body)
        else:
            body, names, array = request.payload(columns=query.columns, default=b"{}")
        routine = catalog.routine(request.schema(self._schemas), name, names, body=not request.reads)
        request.narrow(query.root)
        statement = Statement(catalog, shape=request.shape, max_rows=self._max_rows)
        counted = request.prefer.get("count") in ("exact", "estimated")
        statement.call(routine, query.root, body, names, array=array, count=counted)
        if request.most_affected is not None:
            raise left_out("Prefer: max-affected for a function")
        verdict = exactly_one if request.shape == "object" and routine.returns_set else None
        read_only = request.reads or not routine.volatile
        row = await transact(statement, read_only=read_only, routine=routine, verdict=verdict)
        return self._page(request, query, row, void=routine.returns_void)

    def _finish(self, request: Request, row: Row, answer: Answer) -> Answer:
        """Add the media type, the profile, and what the function set itself (response.status, .headers)."""
        media = _MEDIA.get(request.shape, "application/json")
        if answer.status != 204:
            answer.headers.append(("content-type", f"{media}; charset=utf-8"))
        if len(self._schemas) > 1:
            answer.headers.append(("content-profile", request.schema(self._schemas)))
        if row[3]:
            try:
                own = [
                    (name.lower(), str(text)) for item in orjson.loads(row[3]) for name, text in item.items()
                ]
            except (ValueError, AttributeError, TypeError):
                text = "response.headers guc must be a JSON array composed of objects with a single key and a string value"
                raise ServerError(500, "PGRST111", text) from None
            names = {name for name, _ in own}
            answer.headers = [header for header in answer.headers if header[0] not in names] + own
        if row[4]:
            if not row[4].isdigit() or not 100 <= int(row[4]) <= 599:
                raise ServerError(500, "PGRST112", "response.status guc must be a valid status code")
            answer.status = int(row[4])
        return answer


def _arguments(catalog: Catalog, schema: str, name: str, query: Query) -> dict[str, str]:
    """The arguments of a GET; those of a variadic one are repeated and become an array."""
    variadic = {a.name for r in catalog.routines.get((schema, name), ()) for a in r.arguments if a.variadic}
    found: dict[str, str] = {}
    for key, value in query.arguments:
        if key in variadic:
            quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            found[key] = f"{found[key][:-1]},{quoted}}}" if key in found else f"{{{quoted}}}"
        else:
            found[key] = value
    return found


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _one_line(text: str) -> bytes:
    """A function may put anything into a header: what would break the response goes."""
    return text.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace")
