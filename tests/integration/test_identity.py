"""The identity of a caller: staff are active rows, and a revoked right is noticed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.conftest import Database
from tests.integration.test_send import refused
from tests.support.access import SERVICE, Caller, RefusalError, Rest, player, staff, user

NOBODYS = ["undefined", "null", "None", "NaN", "0", "[object Object]", "s2", "S1", " s1", "s1 ", ""]


def seed(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_staff (staff_id, display_name, active) values ('s1', 'Sam', true), ('s2', 'Sue', false)"
        )


def role_of(db: Database, caller: Caller) -> str:
    with Rest(db, caller) as rest:
        return str(rest.call("gre_whoami")["role"])


@pytest.mark.parametrize("name", NOBODYS)
def test_the_service_key_cannot_act_as_inactive_staff(db: Database, name: str) -> None:
    seed(db)
    caller = SERVICE.acting_as(f"staff:{name}")
    assert role_of(db, caller) == "none"
    with Rest(db, caller) as rest:
        assert refused(rest, "gre_list_sessions") == (403, "act_as_required")
        assert refused(rest, "gre_send_message", message="x", player_id=29) == (403, "act_as_required")


def test_the_header_names_no_staff_while_the_table_is_empty(db: Database) -> None:
    assert role_of(db, SERVICE.acting_as("staff:s1")) == "none"
    seed(db)
    assert role_of(db, SERVICE.acting_as("staff:s1")) == "staff"


def test_the_claim_of_a_token_is_sufficient_only_while_gre_staff_is_empty(db: Database) -> None:
    assert role_of(db, staff("s9")) == "staff"
    assert role_of(db, staff("s9", "admin")) == "admin"
    seed(db)
    assert [role_of(db, staff(who)) for who in ("s1", "s2", "s9", "undefined")] == [
        "staff",
        "none",
        "none",
        "none",
    ]
    assert role_of(db, staff("s9", "admin")) == "none"
    with Rest(db, staff("s9")) as rest:
        assert refused(rest, "gre_list_sessions") == (403, "no_identity")
        assert rest.sql("select from gre_chat_sessions") == []


@pytest.mark.parametrize("number", [2**53 - 1, 1])
def test_a_players_id_is_at_most_the_largest_exact_number_of_javascript(db: Database, number: int) -> None:
    for caller in (player(number), SERVICE.acting_as(f"player:{number}")):
        with Rest(db, caller) as rest:
            assert rest.call("gre_whoami")["player_id"] == number
            assert rest.call("gre_send_message", message="x")["message"]["player_id"] == number


@pytest.mark.parametrize(
    "number", [2**53, 2**53 + 1, 10**17, 10**18, 10**30, 0, -1, "1.5", "\u0967", " 1", "1\n"]
)
def test_a_token_with_an_invalid_player_id_has_no_actor(db: Database, number: Any) -> None:
    assert role_of(db, user("player", player_id=number)) == "none"
    assert role_of(db, SERVICE.acting_as(f"player:{number}")) == "none"


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, 2**63 - 1])
def test_no_interface_accepts_an_id_that_javascript_would_round(db: Database, number: int) -> None:
    seed(db)
    with Rest(db, SERVICE) as service, Rest(db, staff()) as rest:
        for function, given in (
            ("gre_enable_player", {"player_id": number}),
            ("gre_get_player", {"player_id": number}),
            ("gre_send_message", {"player_id": number, "message": "x", "sender": "staff"}),
            ("gre_send_messages", {"messages": [{"player_id": number, "message": "x", "sender": "staff"}]}),
        ):
            assert refused(rest, function, **given) == (400, "player_invalid")
        assert refused(service, "gre_link_user", user_id=str(uuid.uuid4()), player_id=number) == (
            400,
            "link_invalid",
        )
        for table in ("gre_chat_messages (player_id, sender, message)", "gre_chat_sessions (player_id)"):
            values = "(%s, 'player', 'x')" if "sender" in table else "(%s)"
            with pytest.raises(RefusalError, match="player_invalid"):
                service.sql(f"insert into {table} values {values}", number)  # type: ignore[arg-type]
        with pytest.raises(RefusalError, match="23514"):
            service.sql("insert into gre_chat_players (player_id) values (%s)", number)


def lost(service: Rest, *identities: dict[str, Any]) -> list[dict[str, Any]]:
    found = service.call(
        "gre_hub_presence_v1", staff=[], players=[], expires_in=60, identities=list(identities) or []
    )
    return list(found["revoked"])


def claims_of(rest: Rest) -> dict[str, Any]:
    """Return the claims that a daemon keeps for a socket."""
    who = rest.call("gre_whoami")
    return {
        "sub": who["user_id"],
        "role": who["role"],
        "player_id": who["player_id"],
        "staff_id": who["staff_id"],
    }


def test_the_hub_reads_whose_identity_has_ended(db: Database) -> None:
    seed(db)
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    with (
        Rest(db, SERVICE) as service,
        Rest(db, Caller({"role": "authenticated", "sub": first})) as a,
        Rest(db, Caller({"role": "authenticated", "sub": second})) as b,
        Rest(
            db,
            Caller(
                {
                    "role": "authenticated",
                    "sub": first,
                    "app_metadata": {"gre_role": "staff", "staff_id": "s1"},
                }
            ),
        ) as c,
    ):
        service.call("gre_link_user", user_id=first, staff_id="s3")
        service.call("gre_link_user", user_id=second, player_id=29)
        mapped_staff, mapped_player, claimed = claims_of(a), claims_of(b), claims_of(c)
        assert mapped_staff == {"sub": first, "role": "staff", "player_id": None, "staff_id": "s3"}
        assert mapped_player == {"sub": second, "role": "player", "player_id": 29, "staff_id": None}
        assert claimed == {"sub": None, "role": "staff", "player_id": None, "staff_id": "s1"}
        acting = {"sub": None, "role": "player", "player_id": 30, "staff_id": None}
        everybody = [mapped_staff, mapped_player, claimed, acting]
        assert lost(service, *everybody) == []

        service.call("gre_link_user", user_id=second, player_id=31)  # moved to another player
        assert lost(service, *everybody) == [mapped_player]
        service.call("gre_link_user", user_id=second, player_id=29)
        service.sql("update gre_staff set role = 'admin' where staff_id = 's3'")
        assert lost(service, *everybody) == [mapped_staff]
        service.sql("update gre_staff set role = 'staff' where staff_id = 's3'")
        service.call("gre_link_user", user_id=first)  # null for both ends it
        assert lost(service, *everybody) == [mapped_staff]
        service.call("gre_link_user", user_id=first, staff_id="s3")
        service.sql("update gre_staff set active = false where staff_id in ('s1', 's3')")
        assert lost(service, *everybody) == [mapped_staff, claimed]
        service.sql("update gre_staff set active = true")
        service.sql("delete from gre_staff where staff_id in ('s1', 's3')")
        assert lost(service, *everybody) == [mapped_staff, claimed]
        service.call("gre_erase_player", player_id=29)
        assert lost(service, *everybody) == [mapped_staff, mapped_player, claimed]
        odd = [{"sub": "nobody", "role": "staff", "staff_id": "s2"}, {}]
        assert lost(service, *odd) == odd[:1]
        assert refused(
            service, "gre_hub_presence_v1", staff=[], players=[], expires_in=1, identities={"a": 1}
        ) == (400, "identities_invalid")


def test_a_socket_does_not_keep_staff_online_who_lost_the_right(db: Database) -> None:
    seed(db)
    with Rest(db, SERVICE) as service, Rest(db, staff()) as s:
        s.call("gre_set_online_status", status="online", expires_in=30)
        identity = claims_of(s)

        def seen() -> Any:
            (row,) = service.sql("select expires_at from gre_online_status where staff_id = 's1'")
            return row["expires_at"]

        before = seen()
        service.call("gre_hub_presence_v1", staff=["s1"], players=[], expires_in=60, identities=[identity])
        assert seen() > before
        service.sql("update gre_staff set active = false where staff_id = 's1'")
        before = seen()
        service.call("gre_hub_presence_v1", staff=["s1"], players=[], expires_in=90, identities=[identity])
        assert seen() == before


@pytest.mark.parametrize(
    "change",
    [
        "update gre_staff set active = false where staff_id = 's1'",
        "update gre_staff set user_id = null where staff_id = 's1'",
        "update gre_staff set role = 'admin' where staff_id = 's1'",
        "delete from gre_staff where staff_id = 's1'",
        "insert into gre_staff (staff_id) values ('s3')",
        "update gre_chat_players set user_id = null where player_id = 29",
        "delete from gre_chat_players where player_id = 29",
        "update gre_chat_players set chat_enabled = false where player_id = 29",
    ],
)
def test_a_wakeup_is_sent_when_a_right_ends(db: Database, change: str) -> None:
    seed(db)
    with Rest(db, SERVICE) as service:
        service.sql("insert into gre_chat_players (player_id, user_id) values (29, gen_random_uuid())")
        with db.connect("supabase_admin") as admin:
            admin.execute("delete from realtime.messages")
            service.sql(change)  # type: ignore[arg-type]
            assert admin.execute("select from realtime.messages where topic = 'gre:relay'").fetchall()
