"""Which stage starts when: order, jobs, stages that run alone, failures, estimates. No processes here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.schedule import Schedule

NEEDS: dict[str, list[str]] = {
    "data": [],
    "search@a": ["data"],
    "search@b": ["data"],
    "train@a": ["search@a"],
    "train@b": ["search@b"],
    "tables": ["train@a", "train@b"],
}


def finish(schedule: Schedule, stage: str, ok: bool = True) -> None:
    schedule.running.remove(stage)
    (schedule.done if ok else schedule.failed).add(stage)


def start(schedule: Schedule) -> str | None:
    stage = schedule.next()
    if stage is not None:
        schedule.running.add(stage)
    return stage


def test_a_stage_waits_for_what_it_needs() -> None:
    schedule = Schedule(NEEDS, jobs=8)
    assert start(schedule) == "data" and start(schedule) is None
    finish(schedule, "data")
    assert {start(schedule), start(schedule)} == {"search@a", "search@b"} and start(schedule) is None
    finish(schedule, "search@b")
    assert start(schedule) == "train@b"


def test_the_longest_way_to_the_end_goes_first() -> None:
    schedule = Schedule(
        NEEDS, jobs=1, seconds={"search@b": 5.0, "train@b": 50.0, "search@a": 20.0, "train@a": 1.0}
    )
    schedule.done.add("data")
    assert start(schedule) == "search@b"  # 55 s and the tables, against 21 s


def test_a_stage_that_runs_alone_has_no_company() -> None:
    schedule = Schedule({"a": [], "timed": [], "b": [], "c": ["timed"]}, jobs=4, alone=frozenset({"timed"}))
    assert [start(schedule), start(schedule), start(schedule)] == ["a", "b", None]
    finish(schedule, "a")
    assert start(schedule) is None
    finish(schedule, "b")
    assert start(schedule) == "timed" and start(schedule) is None
    finish(schedule, "timed")
    assert start(schedule) == "c"


def test_a_failure_leaves_out_what_is_built_on_it_alone() -> None:
    schedule = Schedule(NEEDS, jobs=1)
    schedule.done |= {"data"}
    schedule.failed |= {"search@a"}
    assert schedule.left_out == {"train@a", "tables"}
    assert start(schedule) == "search@b"
    finish(schedule, "search@b")
    assert start(schedule) == "train@b"
    finish(schedule, "train@b")
    assert start(schedule) is None and schedule.waiting == []


def test_estimates_come_from_a_stage_then_from_its_like() -> None:
    schedule = Schedule(NEEDS, jobs=2, seconds={"search@a": 10.0, "data": 4.0})
    assert [schedule.estimate(s) for s in ("search@a", "search@b", "train@a")] == [10.0, 10.0, 7.0]
    assert Schedule(NEEDS, jobs=2).estimate("train@a") == 1.0
    assert schedule.way("search@b") == 10 + 7 + 7


def test_the_time_left_is_the_work_over_the_jobs_or_the_longest_chain() -> None:
    seconds = {
        "data": 4.0,
        "search@a": 10.0,
        "search@b": 10.0,
        "train@a": 20.0,
        "train@b": 30.0,
        "tables": 6.0,
    }
    assert Schedule(NEEDS, jobs=1, seconds=dict(seconds)).left({}) == pytest.approx(80.0)
    assert Schedule(NEEDS, jobs=2, seconds=dict(seconds)).left({}) == pytest.approx(
        50.0
    )  # data, b, b, tables
    running = Schedule(NEEDS, jobs=2, seconds=dict(seconds), running={"train@b"})
    running.done |= {"data", "search@a", "search@b", "train@a"}
    assert running.left({"train@b": 25.0}) == pytest.approx(11.0)


@given(st.data())
def test_every_stage_runs_once_and_in_order_whatever_the_graph(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    needs = {
        str(i): [str(j) for j in data.draw(st.sets(st.integers(0, i - 1) if i else st.nothing()))]
        for i in range(count)
    }
    alone = frozenset(str(i) for i in data.draw(st.sets(st.integers(0, count - 1))))
    schedule = Schedule(needs, data.draw(st.integers(1, 4)), alone)
    begun: list[str] = []
    while len(schedule.done) < count:
        while (stage := start(schedule)) is not None:
            assert set(needs[stage]) <= schedule.done
            begun.append(stage)
            assert len(schedule.running) <= schedule.jobs
            assert len(schedule.running) == 1 or not schedule.running & alone
        finish(schedule, data.draw(st.sampled_from(sorted(schedule.running))))
    assert sorted(begun) == sorted(needs)
