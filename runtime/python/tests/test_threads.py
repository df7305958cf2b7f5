"""Several threads: the interpreter is free while a call runs, and answers do not mix."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import HISTORIES

import slmrec

#: Takes long enough for another thread to wake up.
LONG = [HISTORIES[3]] * 20_000


@pytest.fixture
def no_forced_switch() -> Iterator[None]:
    """A thread gives the interpreter up of its own accord only."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("no_forced_switch")
def test_the_interpreter_is_free_during_a_call(recommender: slmrec.Recommender) -> None:
    about_to_call, done = threading.Event(), threading.Event()

    def call() -> None:
        about_to_call.set()
        recommender.recommend_batch(LONG)
        done.set()

    thread = threading.Thread(target=call)
    thread.start()
    about_to_call.wait()
    during = not done.is_set()
    thread.join()
    assert during, "this thread had to wait for the end of the call"


@pytest.mark.usefixtures("no_forced_switch")
def test_two_recommenders_run_at_the_same_time(bundles: Path) -> None:
    """Each thread's call is under way when the other one begins, or neither would see it."""
    both = threading.Barrier(2)
    running: set[int] = set()
    seen: list[int] = []

    def call(number: int) -> None:
        with slmrec.Recommender(bundles / "fp32.slmrec") as recommender:
            both.wait()
            running.add(number)
            seen.append(len(running))
            recommender.recommend_batch(LONG)
            running.discard(number)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, range(2)))
    assert sorted(seen) == [1, 2]


def test_calls_from_many_threads_give_what_single_calls_give(
    recommender: slmrec.Recommender,
) -> None:
    expected = [recommender.recommend(history) for history in HISTORIES]

    def call(number: int) -> bool:
        at = number % len(HISTORIES)
        state = recommender.history_state(HISTORIES[at])
        same = recommender.recommend(HISTORIES[at]) == expected[at]
        ids = [item.id for item in state.recommend()]
        return same and ids == [item.id for item in expected[at]]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))


def test_a_state_and_its_recommender_from_two_threads(recommender: slmrec.Recommender) -> None:
    state = recommender.history_state(HISTORIES[0])

    def appends() -> None:
        for number in range(200):
            state.append(f"item-{1 + number % 30}")
            state.recommend(3)

    def asks() -> None:
        for _ in range(200):
            recommender.recommend(HISTORIES[1])

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for work in (appends, asks, appends, asks)]:
            future.result()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_batch_can_be_interrupted(recommender: slmrec.Recommender) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            recommender.recommend_batch(LONG * 50)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert recommender.recommend(HISTORIES[0])
