"""Each guard taken away: the test that is about it must fail."""
import pytest
from tests.integration import test_operator_races as R, test_operator_model as M, test_operator_repair as P
from tests.conftest import *

def run(f,*a):
    try:
        f(*a)
    except BaseException as e:
        return type(e).__name__+": "+str(e).splitlines()[0][:150] if str(e) else type(e).__name__
    return "SURVIVED"

def patch(db, fn, a, b):
    with db.connect() as c:
        src=c.execute("select pg_get_functiondef(p.oid) as d from pg_proc p where proname=%s",[fn]).fetchone()["d"]
        assert a in src,(a,src)
        c.execute(src.replace(a,b).encode())

def test_lock_timeout(db):
    with db.connect() as c: c.execute("alter function gre_relay_replay reset lock_timeout")
    print("\nMUT lock_timeout", run(R.test_a_portal_that_takes_lanes_in_another_order_is_not_the_one_to_be_killed, db))
def test_horizon(db):
    patch(db,"gre_relay_reconcile"," for share"," ")
    print("\nMUT horizon lock", run(R.test_reconcile_and_prune_take_turns, db))
def test_prune_recheck(db):
    patch(db,"gre_relay_prune","""    limit v_limit for update skip locked));
  get diagnostics v_lanes""","""    limit v_limit));
  get diagnostics v_lanes""")
    print("\nMUT prune lanes without lock", run(R.test_prune_beside_inserts_never_takes_a_lane_from_under_a_message, db))
def test_wake(db):
    patch(db,"gre_relay_retry","perform gre.wake_lanes(v_lanes);","")
    print("\nMUT no wake", run(M.test_whatever_operators_do_beside_them_the_outbox_keeps_its_promises, db))
def test_expire_lease(db):
    patch(db,"gre_relay_expire","(l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.longest_lease())","true")
    print("\nMUT expire leased", run(M.test_whatever_operators_do_beside_them_the_outbox_keeps_its_promises, db))
def test_replay_pending(db):
    patch(db,"gre_relay_replay","d.state || '' = 'pending'","false")
    print("\nMUT replay pending too", run(M.test_whatever_operators_do_beside_them_the_outbox_keeps_its_promises, db))
