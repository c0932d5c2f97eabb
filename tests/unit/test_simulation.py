"""The simulation of `make bench ARGS="--only scale"`: it counts right, repeats itself, and follows from its costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.bench import costs, scale_report
from tests.bench.costs import Costs, Line
from tests.bench.scale import QUICK, Run, costs_of
from tests.bench.scale_calls import Calls
from tests.bench.scene import Scene, describe
from tests.bench.simulation import main, simulate

COSTS = Costs(
    insert=0.001,
    claim=Line(0.001, 0.00002),
    settle=Line(0.001, 0.00001),
    call=Line(0.001, 0.000005),
    disk=0.001,
    worker_call=0.001,
    worker=Line(0.001, 0.0001),
    sink=Line(0.0005, 0.00001),
)
BACKLOG = Scene(sessions=100, workers=3, backlog=2_000)
LOAD = Scene(sessions=200, workers=3, cores=4, rate=100.0, seconds=4.0, busy=0.05, spread=0.3)


@pytest.mark.parametrize("scene", [BACKLOG, LOAD], ids=["backlog", "load"])
def test_everything_arrives_once_and_in_order(scene: Scene) -> None:
    found = simulate(scene, COSTS)
    assert len(found.times) == found.written == sum(found.shares) > 200
    assert found.repeats == found.out_of_order == 0
    assert found.calls["claim"] + found.calls["exchange"] > 0
    assert 0 < found.used <= 1


@pytest.mark.parametrize("scene", [BACKLOG, LOAD], ids=["backlog", "load"])
def test_the_outbox_with_indexes_answers_as_the_plain_one(scene: Scene) -> None:
    indexed, plain = simulate(scene, COSTS), simulate(dataclasses.replace(scene, indexed=False), COSTS)
    assert indexed.times == plain.times
    assert indexed.calls == plain.calls
    assert indexed.shares == plain.shares


def test_the_distance_and_the_requests_in_flight_limit_one_worker_and_a_second_one_doubles_it() -> None:
    scene = Scene(sessions=500, backlog=6_000, cores=16, distance=0.2, concurrency=4)
    one, two = (simulate(dataclasses.replace(scene, workers=n), COSTS).throughput for n in (1, 2))
    assert one == pytest.approx(4 * 10 / 0.2, rel=0.15)
    assert two == pytest.approx(2 * one, rel=0.15)


def test_a_database_without_free_cores_is_the_limit_for_any_number_of_workers() -> None:
    slow = dataclasses.replace(COSTS, claim=Line(0.001, 0.002), settle=Line(0.001))
    scene = Scene(sessions=2_000, backlog=4_000, cores=1, distance=0.001)
    two, six = (simulate(dataclasses.replace(scene, workers=n), slow) for n in (2, 6))
    for found in (two, six):
        assert max(found.times.values()) == pytest.approx(0.002 * 4_000, rel=0.15)
        assert found.used > 0.9


def test_one_thread_does_one_thing_at_a_time() -> None:
    slow = dataclasses.replace(COSTS, worker=Line(0.0, 0.01))
    found = simulate(Scene(sessions=50, backlog=500, cores=16, distance=0.001), slow)
    assert found.throughput == pytest.approx(100, rel=0.1)


def test_other_programs_take_their_part_of_the_cores() -> None:
    scene = Scene(sessions=50, backlog=500, cores=1, together=True, distance=0.001)
    alone, beside = (
        max(simulate(dataclasses.replace(scene, others=n), COSTS).times.values()) for n in (0, 4)
    )
    assert beside > 2.5 * alone


def test_a_sessions_backlog_delays_no_other_session() -> None:
    scene = Scene(sessions=100, workers=2, cores=8, rate=200.0, seconds=4.0, busy=0.01, distance=0.2)
    found = simulate(scene, COSTS)
    assert found.at(0.5, busy=True) > 0.2
    assert found.at(0.5, busy=False) < 0.05


def test_the_line_through_two_points_has_no_negative_part() -> None:
    assert Line.through((1, 3.0), (11, 23.0)) == Line(1.0, 2.0)
    assert Line.through((1, 3.0), (11, 2.0)) == Line(3.0, 0.0)
    assert Line.through((1, 1.0), (2, 4.0)) == Line(0.0, 3.0)


def test_the_command_runs_a_small_scene(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--sessions", "20", "--workers", "2", "--backlog", "100"])
    printed = capsys.readouterr().out
    assert "written 100, arrived 100, out of order 0, repeats 0" in printed
    assert printed == describe(simulate(Scene(20, 2, backlog=100), Costs.read())) + "\n"


def a_run(workers: int, events: int, operations: int, costs: Costs) -> Run:
    """A run that cost exactly this, with as many calls as requests."""
    half = operations // 2
    cpu = operations * costs.worker.fixed + events * costs.worker.each
    stand_in = half * costs.call.fixed + 2 * events * costs.call.each
    sink = half * costs.sink.fixed + events * costs.sink.each
    return Run(workers, events, events / 1000, cpu, stand_in, 1.0, sink, half, half, 1e6, 0, 0, 0.0, 1.0)


CALLS = Calls(0.001, 0.002, 3000, 4000, COSTS.claim, COSTS.settle, 300, 800, 600, 0.001)


def test_the_costs_are_those_that_explain_both_runs() -> None:
    found = costs_of(CALLS, a_run(1, 1_000, 2_000, COSTS), a_run(1, 20_000, 2_400, COSTS))
    for line, expected in (
        (found.worker, COSTS.worker), (found.call, COSTS.call), (found.sink, COSTS.sink), (found.claim, COSTS.claim),
    ):  # fmt: skip
        assert line.fixed == pytest.approx(expected.fixed)
        assert line.each == pytest.approx(expected.each)
    assert found.worker_call == found.worker.fixed


def test_the_tables_replace_those_of_the_page_and_the_costs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_report, "PAGE", tmp_path / "scaling.md")
    monkeypatch.setattr(costs, "FILE", tmp_path / "costs.json")
    monkeypatch.setattr(scale_report, "LOADS", ((2, 2, 100.0),))
    scale_report.PAGE.write_text(f"before\n{scale_report.BEGIN}old\n{scale_report.END}after\n")
    run = a_run(2, 1_000, 200, COSTS)
    tables = [
        scale_report.cost_section(CALLS, run, run),
        scale_report.prediction_section([(run, simulate(BACKLOG, COSTS))], 0.01),
        *scale_report.large_sections(dataclasses.replace(QUICK, sessions=200), COSTS, lambda _: None),
    ]
    scale_report.write(COSTS, tables)
    page = scale_report.PAGE.read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert page.count("\n### ") == 5
    assert f"| {run.rate:.0f} |" in page
    assert Costs.read() == COSTS


def test_a_size_carries_half_of_its_cores_divided_by_the_cost_of_a_message() -> None:
    steady = [
        (Scene(100, 2, cores, rate=100.0), dataclasses.replace(simulate(LOAD, COSTS), used=0.25))
        for cores in (2, 4)
    ]
    costs_of_both = [found.used * scene.cores / found.throughput for scene, found in steady]
    rows = {row[0]: row for row in scale_report.sizes_section(steady, COSTS).rows}

    def rounded(number: float) -> str:
        return f"{float(f'{number:.2g}'):,.0f}"

    assert rows["Large"][4] == rounded(1 / costs_of_both[0])
    assert rows["XL"][4] == rounded(2 / costs_of_both[1])
    assert rows["XL"][5] == rounded(2 / (2 * costs_of_both[1] - COSTS.insert))
    assert rows["16XL"][4] == rounded(32 / costs_of_both[1]), "extrapolated from the most cores"
