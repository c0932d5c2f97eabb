"""Templates and the renderer: an unknown placeholder is refused when a text is saved, a missing value when it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, SERVICE, RefusalError, Rest, player, staff
from tests.support.desk import people, waiting

HELLO = {
    "shortcut": "hello",
    "title": "A greeting",
    "texts": {"en": "Hello {{player_name|there}}, I am {{staff_name}}."},
}


@pytest.fixture
def admin(db: Database) -> Iterator[Rest]:
    with db.connect() as conn:
        people(conn, 2)
        conn.execute("insert into gre_staff (staff_id, display_name, role) values ('a1', 'Ann', 'admin')")
    with Rest(db, ADMIN) as rest:
        yield rest


@pytest.fixture
def s1(admin: Rest, db: Database) -> Iterator[Rest]:
    with Rest(db, staff("s1")) as rest:
        yield rest


def save(rest: Rest, template: dict[str, Any], template_id: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = rest.call("gre_save_template", template=template, id=template_id)
    return found


def texts(text: str, **fields: Any) -> dict[str, Any]:
    return {"shortcut": "x", "title": "x", "texts": {"en": text}, **fields}


def send(rest: Rest, text: str, session: Any, origin: str = "template") -> None:
    rest.sql(
        "insert into gre_chat_messages (session_id, sender, message, origin) values (%s, 'staff', %s, %s)",
        session, text, origin,
    )  # fmt: skip


def session_of(db: Database, player_id: int = 29, name: str | None = None) -> Any:
    with db.connect() as conn:
        if name is not None:
            conn.execute(
                "insert into gre_chat_players (player_id, display_name) values (%s, %s)", [player_id, name]
            )
        return waiting(conn, player_id)[0]


# Saving


def test_admins_write_everybodys_templates_and_staff_their_own(db: Database, admin: Rest, s1: Rest) -> None:
    shared = save(admin, HELLO)
    assert shared == {**HELLO, "id": shared["id"], "staff_id": None, "uses": 0, "active": True}
    own = save(s1, HELLO | {"title": "My greeting"})
    assert own["staff_id"] == "s1"
    assert s1.call("gre_list_templates") == [own, shared]
    assert admin.call("gre_list_templates") == [shared]
    assert s1.call("gre_get_template", id=own["id"]) == own
    # A listed object can be saved again.
    assert save(s1, own | {"active": False}, own["id"]) == own | {"active": False}
    for change in (lambda: save(s1, {"title": "y"}, shared["id"]), lambda: save(s1, HELLO | {"staff_id": None}),
                   lambda: save(s1, {"staff_id": None}, own["id"]), lambda: s1.call("gre_delete_template", id=shared["id"])):  # fmt: skip
        with pytest.raises(RefusalError, match="admin_only"):
            change()
    for rest in (admin, s1):
        with pytest.raises(RefusalError, match="staff_mismatch"):
            save(rest, HELLO | {"staff_id": "s2"})
    with Rest(db, staff("s2")) as s2:
        assert s2.call("gre_list_templates") == [shared]
        for call in (lambda: s2.call("gre_get_template", id=own["id"]), lambda: save(s2, {"title": "y"}, own["id"]),
                     lambda: s2.call("gre_delete_template", id=own["id"])):  # fmt: skip
            with pytest.raises(RefusalError, match="template_unknown"):
                call()
    with Rest(db, player(29)) as p, pytest.raises(RefusalError, match="staff_only"):
        p.call("gre_list_templates")
    with pytest.raises(RefusalError, match="shortcut_taken"):
        save(admin, HELLO)
    s1.call("gre_delete_template", id=own["id"])
    admin.call("gre_delete_template", id=shared["id"])
    assert s1.call("gre_list_templates") == []


@pytest.mark.parametrize(
    ("text", "code", "unknown"),
    [
        ("Hi {{player}}", "placeholder_unknown", ["player"]), ("{{staff_name}} {{b}} {{a|x}} {{a}}", "placeholder_unknown", ["a", "b"]),
        ("{{?amount|5}}", "placeholder_unknown", ["?amount"]),
        ("Hi {{player_name", "placeholder_invalid", None), ("Hi {{ player_name }}", "placeholder_invalid", None),
        ("Hi player_name}}", "placeholder_invalid", None), ("{{player_name|{{staff_name}}}}", "placeholder_invalid", None),
        ("{{{{player_name}}", "placeholder_invalid", None), ("{{}}", "placeholder_invalid", None), ("{{PLAYER_NAME}}", "placeholder_invalid", None),
        ("{{{player_name|}}{", "placeholder_invalid", None), ("{{{player_name|}}{staff_name}}", "placeholder_invalid", None),
        (" \u200b ", "texts_invalid", None), ("x" * 4001, "texts_invalid", None), ("", "texts_invalid", None),
    ],
)  # fmt: skip
def test_an_unknown_placeholder_is_refused_when_the_text_is_saved(
    admin: Rest, text: str, code: str, unknown: list[str] | None
) -> None:
    with pytest.raises(RefusalError) as refused:
        save(admin, texts(text))
    assert (refused.value.status, refused.value.code) == (400, code)
    if unknown:
        assert json.loads(refused.value.detail) == {"unknown": unknown}
    assert admin.call("gre_list_templates") == []
    good = save(admin, texts("good"))
    with pytest.raises(RefusalError):
        save(admin, {"texts": {"en": "good", "de": text}}, good["id"])
    assert admin.call("gre_list_templates") == [good]


@pytest.mark.parametrize(
    "template",
    [
        {"texts": {}}, {"texts": []}, {"texts": None}, {"texts": {"en": 5}}, {"texts": {"English!": "x"}}, {"texts": {"en": None}},
        {"texts": {f"a{chr(97 + n)}": "x" for n in range(21)}}, {"shortcut": "No Shortcut"}, {"shortcut": None}, {"title": ""},
        {"title": "x" * 121}, {"active": None}, {"active": "maybe"},
    ],
)  # fmt: skip
def test_a_template_that_is_not_valid_changes_nothing(admin: Rest, template: dict[str, Any]) -> None:
    with pytest.raises(RefusalError) as refused:
        save(admin, texts("x") | template)
    assert refused.value.status == 400
    assert admin.call("gre_list_templates") == []


# Rendering


def render(rest: Rest, template: dict[str, Any], session: Any) -> dict[str, Any]:
    found: dict[str, Any] = rest.call("gre_render_template", template_id=template["id"], session_id=session)
    return found


def test_values_fallbacks_and_blanks(db: Database, admin: Rest, s1: Rest) -> None:
    template = save(admin, texts(
        "{{player_name|there}}, {{player_name}} {{staff_name}} {{?amount}} {{?table_no}} {{?amount}} {{open_until|late}} {{next_open|}}!"
    ))  # fmt: skip
    named = session_of(db, 29, "Asha")
    assert render(s1, template, named) == {
        "text": "Asha, Asha S1 {{?amount}} {{?table_no}} {{?amount}} late !", "missing": ["amount", "table_no"],
    }  # fmt: skip
    unnamed = session_of(db, 30)
    assert render(s1, template, unnamed) == {
        "text": "there, {{player_name}} S1 {{?amount}} {{?table_no}} {{?amount}} late !",
        "missing": ["amount", "player_name", "table_no"],
    }
    assert render(s1, save(admin, texts("{ {{{player_name}}} }", shortcut="y")), named) == {
        "text": "{ {Asha} }", "missing": [],
    }  # fmt: skip
    with pytest.raises(RefusalError, match="session_unknown"):
        render(s1, template, "00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize("name", ["{{staff_name}}", "{{?amount}}", "{{", "}}{{", "a}}b{{staff_name}}"])
def test_a_player_named_like_a_placeholder_is_no_template(db: Database, s1: Rest, name: str) -> None:
    session = session_of(db, 29, name)
    found = render(s1, save(s1, HELLO), session)
    assert found == {
        "text": f"Hello {name.replace('{', '(').replace('}', ')')}, I am S1.", "missing": [],
    }  # fmt: skip
    send(s1, found["text"], session)


def test_the_texts_of_one_owner_are_bounded_in_bytes(admin: Rest, s1: Rest, db: Database) -> None:
    large = {f"a{chr(97 + n)}": "\N{HEDGEHOG}" * 4000 for n in range(20)}  # some 320 KB
    kept = [save(s1, {"shortcut": f"s{n}", "title": "x", "texts": large}) for n in range(3)]
    for rest in (s1, admin):
        count = 0
        with pytest.raises(RefusalError) as refused:
            for count in range(20):
                save(rest, {"shortcut": f"n{count}", "title": "x", "texts": large})
        assert (refused.value.status, refused.value.code) == (409, "too_many")
        assert count == (0 if rest is s1 else 13), "each owner has room of its own"
    save(s1, {"texts": large, "title": "changed"}, kept[0]["id"])
    s1.call("gre_delete_template", id=kept[1]["id"])
    save(s1, {"shortcut": "again", "title": "x", "texts": large})
    with Rest(db, staff("s2")) as s2:
        assert len(json.dumps(s2.call("gre_list_templates"), ensure_ascii=False).encode()) < 5_000_000


def test_times_are_local_times_of_the_desks_hours(db: Database, admin: Rest, s1: Rest) -> None:
    times = "{{open_until|-}} {{next_open|-}}"
    template = save(admin, texts(times))
    foreign = save(admin, {"shortcut": "y", "title": "y", "texts": {"de": times}})
    session = session_of(db)
    day = {"opens": "00:00", "closes": "24:00"}
    now = datetime.now(UTC)

    def shown(dates: list[dict[str, Any]]) -> str:
        admin.call("gre_set_hours", name="desk", timezone="UTC", week=[{"weekday": 1}], dates=dates)
        admin.call("gre_set_settings", settings={"hours": "desk"})
        text: str = render(s1, template, session)["text"]
        return text

    dates = [(now + timedelta(days=n)).date() for n in range(3)]
    days = [date.isoformat() for date in dates]
    tomorrow, later = (f"{date:%A}, {date.day} {date:%B}" for date in dates[1:])
    assert (
        shown([{"day": days[0]} | day, {"day": days[1], "opens": "00:00", "closes": "17:30"}])
        == f"{tomorrow}, 17:30 -"
    )
    assert (
        shown([{"day": days[0]}, {"day": days[1]}, {"day": days[2], "opens": "09:05", "closes": "10:00"}])
        == f"- {later}, 09:05"
    )
    assert render(s1, foreign, session)["text"] == f"- {days[2]} 09:05"
    assert shown(
        [{"day": days[0], "opens": "00:00", "closes": "23:59"}, {"day": days[1]}, {"day": days[2]}]
    ) in ("23:59 -", "- -")


def test_the_language_is_that_of_the_players_last_message(db: Database, s1: Rest) -> None:
    template = save(s1, HELLO | {"texts": {"de": "Hallo", "en": "Hello", "pt-BR": "Oi"}})
    other = save(s1, HELLO | {"shortcut": "b", "texts": {"it": "Ciao", "fr": "Salut"}})
    with Rest(db, player(29)) as p:
        for language, text in (
            (None, "Hello"),
            ("de", "Hallo"),
            ("de-AT", "Hallo"),
            ("pt-BR", "Oi"),
            ("pt", "Hello"),
            ("x", "Hello"),
            (7, "Hello"),
        ):
            found = p.call(
                "gre_send_message", message="x", metadata={"language": language} if language else {"a": 1}
            )
            assert render(s1, template, found["message"]["session_id"])["text"] == text
            assert render(s1, other, found["message"]["session_id"])["text"] == "Salut"


# Sending


@pytest.mark.parametrize(
    ("text", "missing"), [("Pay {{?amount}} at {{open_until}}", ["amount", "open_until"]), ("a {{ b", [])]
)
def test_a_missing_value_is_refused_when_the_message_is_sent(
    db: Database, s1: Rest, text: str, missing: list[str]
) -> None:
    session = session_of(db)
    with pytest.raises(RefusalError) as refused:
        send(s1, text, session)
    assert (refused.value.status, refused.value.code) == (400, "template_incomplete")
    assert json.loads(refused.value.detail) == {"missing": missing}
    with Rest(db, SERVICE) as back_end, pytest.raises(RefusalError, match="template_incomplete"):
        send(back_end, text, session)
    assert s1.sql("select count(*) as n from gre_chat_messages where sender = 'staff'") == [{"n": 0}]
    # What a person has typed is stored as it is.
    send(s1, text, session, "typed")
    with Rest(db, player(29)) as p:
        p.sql(
            "insert into gre_chat_messages (message, sender, origin) values (%s, 'player', 'template')", text
        )
    assert s1.sql("select message, origin from gre_chat_messages where message = %s", text) == [
        {"message": text, "origin": "typed"}, {"message": text, "origin": "typed"},
    ]  # fmt: skip


def test_a_message_from_a_template_has_its_origin_and_is_counted(db: Database, admin: Rest, s1: Rest) -> None:
    template = save(admin, HELLO)
    session = session_of(db)
    sent = s1.call("gre_staff_reply", message="Hello!", session_id=session, template_id=template["id"])
    s1.call("gre_send_message", message="Hello!", session_id=session, template_id=template["id"])
    s1.call(
        "gre_staff_reply",
        message="Bye",
        session_id=session,
        template_id="00000000-0000-4000-8000-000000000000",
    )
    s1.call("gre_staff_reply", message="Typed", session_id=session)
    assert "auto" not in sent["message"]
    found = s1.sql("select message, origin from gre_chat_messages where sender = 'staff' order by seq")
    assert [(row["message"], row["origin"]) for row in found] == [
        ("Hello!", "template"), ("Hello!", "template"), ("Bye", "template"), ("Typed", "typed"),
    ]  # fmt: skip
    assert admin.call("gre_get_template", id=template["id"])["uses"] == 2
    with db.connect() as holder, holder.transaction():
        holder.execute("update gre_templates set title = 'held'")  # a reply does not wait for an admin
        s1.call("gre_staff_reply", message="Hello!", session_id=session, template_id=template["id"])
    assert admin.call("gre_get_template", id=template["id"])["uses"] == 2
