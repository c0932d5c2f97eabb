"""The rules of claim, settle, exchange, extend and release, tested on the SQL and on the outbox in memory.

The outbox in memory (tests/support/relay.py) stands in for the SQL where the relay's loop is tested in virtual time;
those tests are valid only while the two agree. `test_outbox_model.py` applies random operations to both.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from gre_bridge.db.types import Claim, Failure, LaneResult, Settled
from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import own_database
from tests.support.outboxes import RESTING, InDatabase, InMemory, Subject, about
from tests.support.relay import virtual

DONE, PENDING = ("done", 0, ""), ("pending", 0, "")


@pytest.fixture(scope="module")
def in_database(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[InDatabase]:
    """The SQL, on one database for all cases."""
    with own_database(pg, migrated_template, "contract") as database, InDatabase.of(database) as subject:
        yield subject


@pytest.fixture(params=["sql", "memory"])
def outbox(request: pytest.FixtureRequest) -> Subject:
    if request.param == "memory":
        return InMemory()
    subject: InDatabase = request.getfixturevalue("in_database")
    subject.clear()
    return subject


def keys(claim: Claim) -> list[str]:
    return [lane.key for lane in claim.lanes]


def ids(claim: Claim) -> list[str]:
    return [delivery.id for lane in claim.lanes for delivery in lane.deliveries]


def all_done(claim: Claim) -> list[LaneResult]:
    return [LaneResult(lane.key, claim.token, [d.id for d in lane.deliveries]) for lane in claim.lanes]


def refused(*names: str, state: str = "retry", spend: bool = True, retry_in: float = 0.0) -> Failure:
    return Failure(names, "dead" if state == "dead" else "retry", "413", spend, retry_in)


def settled(*, busy: str = "", lost: str = "", waiting: int = 0) -> Settled:
    """Return an answer about lanes whose keys are one letter each."""
    return Settled(frozenset(busy), frozenset(lost), waiting)


# Claim ------------------------------------------------------------------------------------------------------


@virtual
async def test_a_claim_takes_the_lanes_with_the_oldest_ready_at(outbox: Subject) -> None:
    for lane in "cab":
        outbox.put(lane)
        outbox.age(60)
    first = await outbox.claim(lanes=2)
    assert (keys(first), first.next_in) == (["c", "a"], 0)
    assert [d.age for lane in first.lanes for d in lane.deliveries] == [about(180), about(120)]
    second = await outbox.claim(lanes=2)
    assert (keys(second), second.next_in) == (["b"], about(60))


@virtual
async def test_a_claim_returns_the_first_deliveries_of_a_lane_in_order(outbox: Subject) -> None:
    names = outbox.put("a", 3)
    claim = await outbox.claim(per_lane=2)
    assert ids(claim) == names[:2]
    assert [d.attempts for d in claim.lanes[0].deliveries] == [0, 0]
    await outbox.settle(*all_done(claim))
    assert ids(await outbox.claim(per_lane=2)) == names[2:]


@virtual
async def test_a_full_claim_reports_that_more_may_be_due_now(outbox: Subject) -> None:
    outbox.put("a")
    assert (await outbox.claim(lanes=1)).next_in == 0


@virtual
async def test_rule_10_a_claim_returns_when_the_next_lane_is_due_leases_included(outbox: Subject) -> None:
    assert (await outbox.claim()).next_in is None
    outbox.put("leased")
    assert (await outbox.claim(lease=240)).next_in is None, "the lanes of this claim do not count"
    assert (await outbox.claim()).next_in == about(240)
    outbox.put("later")
    await outbox.settle(LaneResult("later", (await outbox.claim()).token, retry_in=120))
    assert (await outbox.claim()).next_in == about(120)
    outbox.put("locked")
    with outbox.locked("locked"):
        claim = await outbox.claim()
    assert (keys(claim), claim.next_in) == ([], 0)
    assert keys(await outbox.claim()) == ["locked"]


@virtual
async def test_rule_5_a_claim_sets_lanes_without_pending_deliveries_to_resting_and_finds_others(
    outbox: Subject,
) -> None:
    for lane in "abc":
        outbox.delete(*outbox.put(lane))
        outbox.age(60)
    outbox.put("d")
    first = await outbox.claim(lanes=2)
    assert (keys(first), first.emptied_lanes, first.next_in) == ([], 2, 0)
    second = await outbox.claim(lanes=3)
    assert (keys(second), second.emptied_lanes, second.next_in) == (["d"], 1, None)
    assert [outbox.lanes()[lane] for lane in "abc"] == [RESTING] * 3


@virtual
async def test_a_lane_is_claimed_again_when_its_lease_has_expired(outbox: Subject) -> None:
    names = outbox.put("a", 2)
    owner = str(uuid.uuid4())
    first = await outbox.claim(owner=owner, lease=60)
    assert keys(await outbox.claim()) == []
    outbox.age(60)
    again = await outbox.claim(owner=owner)
    assert (ids(again), again.recovered_lanes) == (names, 0)
    assert outbox.lanes()["a"].token == again.token != first.token


@virtual
async def test_a_lease_has_a_maximum(outbox: Subject) -> None:
    outbox.put("a")
    claim = await outbox.claim(lease=7200)
    assert outbox.lanes()["a"].lease_left == about(300)
    await outbox.extend(claim.token, "a", lease=7200)
    assert outbox.lanes()["a"].lease_left == about(300)


@virtual
async def test_rule_10_times_beyond_the_longest_lease_or_backoff_count_as_due(outbox: Subject) -> None:
    """As after the database's clock was set back by an hour."""
    owner = str(uuid.uuid4())
    outbox.put("leased")
    outbox.age(3600)
    outbox.put("ready")
    first = await outbox.claim(owner=owner)
    outbox.age(-1800)
    outbox.put("due")
    with outbox.locked("ready"):
        second = await outbox.claim()
    assert (keys(second), second.recovered_lanes, second.next_in) == (["leased", "due"], 0, None)
    third = await outbox.claim(owner=owner)
    assert (keys(third), third.recovered_lanes, third.next_in) == (["ready"], 0, about(60))
    assert outbox.lanes()["ready"].ready_in == about(0)
    assert await outbox.settle(*all_done(first)) == Settled(frozenset(), frozenset(keys(first)), 0)


# Claims of one owner ----------------------------------------------------------------------------------------


@virtual
async def test_rule_4_the_next_claim_of_the_worker_takes_the_lanes_of_a_claim_whose_answer_was_lost(
    outbox: Subject,
) -> None:
    for lane in "abcde":
        outbox.put(lane)
    owner, other = str(uuid.uuid4()), str(uuid.uuid4())
    first = await outbox.claim(owner=owner, lanes=2)
    unheard = await outbox.claim(owner=owner, held=[first.token])
    assert (keys(first), keys(unheard)) == (["a", "b"], ["c", "d", "e"])
    for held in ([], [unheard.token]):
        others = await outbox.claim(owner=other, held=held)
        assert (keys(others), others.next_in) == ([], about(60)), "a lease of another worker is still valid"
    held = await outbox.claim(owner=owner, held=[unheard.token, first.token])
    assert (keys(held), held.recovered_lanes) == ([], 0)
    again = await outbox.claim(owner=owner, held=[first.token])
    assert keys(again) == ["c", "d", "e"]
    assert (again.recovered_lanes, again.emptied_lanes, again.next_in) == (3, 0, about(60))
    assert await outbox.settle(*all_done(unheard)) == settled(lost="cde")
    assert await outbox.settle(*all_done(first), *all_done(again)) == settled()


@virtual
async def test_a_lane_that_is_recovered_and_has_nothing_pending_is_counted_as_both(outbox: Subject) -> None:
    names = outbox.put("a")
    owner = str(uuid.uuid4())
    await outbox.claim(owner=owner)
    outbox.delete(*names)
    again = await outbox.claim(owner=owner)
    assert (keys(again), again.recovered_lanes, again.emptied_lanes) == ([], 1, 1)


@virtual
async def test_a_claim_reports_a_lost_lane_as_due_now_while_a_portal_has_it_locked(outbox: Subject) -> None:
    outbox.put("a")
    owner = str(uuid.uuid4())
    await outbox.claim(owner=owner)
    with outbox.locked("a"):
        mine, others = await outbox.claim(owner=owner), await outbox.claim()
    assert (keys(mine), mine.recovered_lanes, mine.next_in) == ([], 0, 0)
    assert (keys(others), others.next_in) == ([], about(60))
    assert keys(await outbox.claim(owner=owner)) == ["a"]


@virtual
async def test_release_frees_the_lanes_of_the_worker_and_no_others(outbox: Subject) -> None:
    for lane in "abcde":
        outbox.put(lane)
    owner, other = str(uuid.uuid4()), str(uuid.uuid4())
    first = await outbox.claim(owner=owner, lanes=2)
    await outbox.claim(owner=owner, held=[first.token], lanes=1)
    await outbox.claim(owner=other)
    with outbox.locked("a", "e"):
        assert not await outbox.release(owner)
    assert [state.owner for _, state in sorted(outbox.lanes().items())] == [owner, None, None, other, other]
    assert await outbox.release(owner)
    assert await outbox.release(owner), "nothing is left to release"
    assert keys(await outbox.claim()) == ["a", "b", "c"]


# Settle -----------------------------------------------------------------------------------------------------


@virtual
async def test_a_lane_whose_deliveries_are_done_or_expired_is_resting(outbox: Subject) -> None:
    first, second, third = outbox.put("a", 3)
    token = (await outbox.claim()).token
    assert await outbox.settle(LaneResult("a", token, [first, third], expired=[second])) == settled()
    assert outbox.deliveries() == {first: DONE, second: ("expired", 0, ""), third: DONE}
    assert outbox.lanes()["a"] == RESTING
    assert (await outbox.claim()).next_in is None
    outbox.put("a")
    assert outbox.lanes()["a"].ready_in == about(0)


@virtual
async def test_a_lane_with_more_deliveries_is_due_since_the_commit_of_the_next_one(outbox: Subject) -> None:
    outbox.put("a", 2)
    outbox.age(60)
    outbox.put("b")
    outbox.put("a")
    claim = await outbox.claim(lanes=1, per_lane=1)
    assert await outbox.settle(*all_done(claim)) == settled(waiting=1)
    assert outbox.lanes()["a"].ready_in == about(-60)
    assert keys(await outbox.claim()) == ["a", "b"]


@virtual
async def test_a_retry_delays_the_lane_also_for_later_deliveries(outbox: Subject) -> None:
    first, second = outbox.put("a", 2)
    token = (await outbox.claim()).token
    failure = refused(first, spend=False, retry_in=120)
    assert await outbox.settle(LaneResult("a", token, failure=failure)) == settled(waiting=1)
    assert outbox.deliveries() == {first: ("pending", 0, "413"), second: PENDING}
    third = outbox.put("a")
    assert outbox.lanes()["a"].ready_in == about(120)
    outbox.age(120)
    assert ids(await outbox.claim()) == [first, second, *third]


@virtual
async def test_rule_11_a_failed_lane_is_claimed_again_from_its_failed_delivery_on(outbox: Subject) -> None:
    first, second, third, fourth = outbox.put("a", 4)
    token = (await outbox.claim()).token
    # Two deliveries that were sent as one record fail together.
    result = LaneResult("a", token, [first], failure=refused(second, third))
    assert await outbox.settle(result) == settled(waiting=1)
    again = await outbox.claim()
    assert [(d.id, d.attempts) for d in again.lanes[0].deliveries] == [(second, 1), (third, 1), (fourth, 0)]


@virtual
async def test_a_dead_delivery_does_not_block_the_next_one_and_keeps_its_error(outbox: Subject) -> None:
    first, second = outbox.put("a", 2)
    failure = Failure((first,), "dead", "x" * 600, spend=True)
    await outbox.settle(LaneResult("a", (await outbox.claim()).token, failure=failure))
    assert outbox.deliveries() == {first: ("dead", 1, "x" * 500), second: PENDING}
    assert ids(await outbox.claim()) == [second]


@virtual
async def test_a_lane_may_be_freed_for_later_up_to_the_longest_backoff(
    outbox: Subject,
) -> None:
    for pause, bounded in ((0, 0), (240, 240), (7200, 600)):
        outbox.put("a")
        outbox.age(60)
        await outbox.settle(LaneResult("a", (await outbox.claim()).token, retry_in=pause))
        assert outbox.lanes()["a"].ready_in == about(bounded)
        outbox.age(bounded)


@virtual
async def test_progress_is_recorded_while_the_lane_is_kept(outbox: Subject) -> None:
    first, second, third = outbox.put("a", 3)
    token = (await outbox.claim()).token
    part = LaneResult("a", token, [first], expired=[second], keep=True)
    assert await outbox.settle(part) == settled()
    assert outbox.deliveries() == {first: DONE, second: ("expired", 0, ""), third: PENDING}
    assert outbox.lanes()["a"].token == token
    assert await outbox.settle(part, LaneResult("a", token)) == settled(waiting=1)
    assert ids(await outbox.claim()) == [third]


@virtual
async def test_rule_2_settle_frees_exactly_the_lanes_it_names_each_with_its_own_token(
    outbox: Subject,
) -> None:
    for lane in "abc":
        outbox.put(lane, 2)
    one = await outbox.claim(lanes=1)
    two = await outbox.claim()
    a, b, c = *all_done(one), *all_done(two)
    answer = await outbox.settle(a, LaneResult("c", one.token), LaneResult("b", two.token, b.done[:1]))
    assert answer == settled(lost="c", waiting=1)
    assert {key: state.token for key, state in outbox.lanes().items()} == {
        "a": None,
        "b": None,
        "c": two.token,
    }
    assert await outbox.settle(c) == settled()


@virtual
async def test_rule_2_a_repeated_settle_changes_nothing(outbox: Subject) -> None:
    outbox.put("a")
    results = all_done(await outbox.claim())
    assert await outbox.settle(*results) == settled()
    second = outbox.put("a")
    token = (await outbox.claim()).token
    before = outbox.deliveries()
    assert await outbox.settle(*results) == settled(lost="a")
    assert (outbox.deliveries(), outbox.lanes()["a"].token) == (before, token)
    assert before[second[0]] == PENDING


@virtual
async def test_rule_3_done_counts_after_the_lease_was_lost_but_retry_does_not(outbox: Subject) -> None:
    first, second, third = outbox.put("a", 3)
    zombie = (await outbox.claim()).token
    outbox.age(60)
    late = LaneResult(
        "a", zombie, [first], expired=[second], failure=refused(third, state="dead", retry_in=60)
    )
    heir = await outbox.claim()
    assert await outbox.settle(late) == settled(lost="a")
    assert outbox.deliveries() == {first: DONE, second: ("expired", 0, ""), third: PENDING}
    assert outbox.lanes()["a"].token == heir.token
    assert await outbox.settle(late, LaneResult("a", heir.token)) == settled(lost="a", waiting=1)
    assert outbox.lanes()["a"].ready_in == about(-60)


@virtual
async def test_an_expired_lease_can_be_settled_and_extended_until_another_claim_takes_the_lane(
    outbox: Subject,
) -> None:
    outbox.put("a")
    claim = await outbox.claim(lease=60)
    outbox.age(120)
    assert await outbox.extend(claim.token, "a", lease=60) == (frozenset("a"), frozenset())
    assert outbox.lanes()["a"].lease_left == about(60)
    outbox.age(120)
    assert await outbox.settle(*all_done(claim)) == settled()


@virtual
async def test_rule_3_settle_does_not_wait_for_a_lane_that_another_has_locked(outbox: Subject) -> None:
    (first, second), (other,) = outbox.put("a", 2), outbox.put("b")
    claim = await outbox.claim()
    mine = LaneResult("a", claim.token, [first], failure=refused(second))
    strange = LaneResult("a", str(uuid.uuid4()))
    with outbox.locked("a"):
        assert await outbox.settle(mine, LaneResult("b", claim.token, [other])) == settled(busy="a")
        assert await outbox.settle(strange) == settled(busy="a")
        # Sent deliveries are recorded at once; the rest of the result waits for the lane.
        assert outbox.deliveries() == {first: DONE, second: PENDING, other: DONE}
        assert outbox.lanes()["a"].token == claim.token
    assert await outbox.settle(strange) == settled(lost="a")
    assert await outbox.settle(mine) == settled(waiting=1)
    assert outbox.deliveries()[second] == ("pending", 1, "413")


@virtual
async def test_rule_3_settle_does_not_wait_for_a_delivery_that_another_has_locked(outbox: Subject) -> None:
    (first, second), (other,) = outbox.put("a", 2), outbox.put("b")
    claim = await outbox.claim()
    results = [
        LaneResult("a", claim.token, [first], expired=[second]),
        LaneResult("b", claim.token, failure=refused(other, state="dead")),
    ]
    with outbox.locked(second, other):
        assert await outbox.settle(*results) == settled(busy="a", waiting=1)
        assert outbox.deliveries() == {first: DONE, second: PENDING, other: PENDING}
        assert {key: state.token for key, state in outbox.lanes().items()} == {"a": claim.token, "b": None}
    assert await outbox.settle(*results) == settled(lost="b")
    assert outbox.deliveries() == {first: DONE, second: ("expired", 0, ""), other: PENDING}


@virtual
async def test_rule_3_progress_on_a_locked_delivery_is_busy_and_the_lane_is_not_freed_before_it(
    outbox: Subject,
) -> None:
    first, second, third = outbox.put("a", 3)
    token = (await outbox.claim()).token
    part, rest = LaneResult("a", token, [first], expired=[second], keep=True), LaneResult("a", token, [third])
    with outbox.locked(second):
        assert await outbox.settle(part) == settled(busy="a")
        assert await outbox.settle(part, rest) == settled(busy="a")
        assert outbox.deliveries() == {first: DONE, second: PENDING, third: DONE}
        assert outbox.lanes()["a"].token == token
    with outbox.locked("a"):
        assert await outbox.settle(part) == settled(), "a result that keeps the lane does not need its lock"
    assert await outbox.settle(part, rest) == settled()
    assert outbox.deliveries() == {first: DONE, second: ("expired", 0, ""), third: DONE}
    assert outbox.lanes()["a"] == RESTING


@virtual
async def test_a_deleted_lane_or_delivery_is_neither_busy_nor_lost(outbox: Subject) -> None:
    first, second = outbox.put("a", 2)
    token = (await outbox.claim()).token
    outbox.delete(first)
    results = [LaneResult("a", token, [first, second]), LaneResult("pruned", token, [str(uuid.uuid4())])]
    assert await outbox.settle(*results) == settled()
    assert (set(outbox.lanes()), outbox.deliveries()) == ({"a"}, {second: DONE})


@virtual
async def test_two_results_of_one_lease_in_one_settle_are_both_applied(outbox: Subject) -> None:
    first, second = outbox.put("a", 2)
    token = (await outbox.claim()).token
    results = [
        LaneResult("a", token, [first], expired=[first]),
        LaneResult("a", token, failure=refused(second)),
    ]
    assert await outbox.settle(*results) == settled(waiting=1)
    assert outbox.deliveries() == {first: ("expired", 0, ""), second: ("pending", 1, "413")}


# Exchange, extend -------------------------------------------------------------------------------------------


@virtual
async def test_an_exchange_settles_and_then_claims_what_was_freed(outbox: Subject) -> None:
    names = outbox.put("a", 2)
    first = await outbox.claim(per_lane=1)
    freed, claim = await outbox.exchange(*all_done(first))
    assert (freed, ids(claim), claim.recovered_lanes) == (settled(waiting=1), names[1:], 0)
    later = LaneResult("a", claim.token, retry_in=120)
    freed, claim = await outbox.exchange(later)
    assert (freed, keys(claim), claim.next_in) == (settled(waiting=1), [], about(120))
    freed, claim = await outbox.exchange(later)
    assert (freed, keys(claim)) == (settled(lost="a"), [])


@virtual
async def test_rule_3_extend_returns_extended_and_locked_lanes_and_the_rest_is_lost(
    outbox: Subject,
) -> None:
    for lane in "abcd":
        outbox.put(lane)
    token = (await outbox.claim(lanes=2)).token
    other = (await outbox.claim()).token
    with outbox.locked("b", "c"):
        answer = await outbox.extend(token, *"abcd", "pruned", lease=240)
    assert answer == (frozenset("a"), frozenset("b"))
    lanes = outbox.lanes()
    assert [lanes[key].token for key in sorted(lanes)] == [token, token, other, other]
    assert [lanes[key].lease_left for key in sorted(lanes)] == [about(240), about(60), about(60), about(60)]
