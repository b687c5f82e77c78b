"""How signals and threads reach the daemon's main thread."""

from __future__ import annotations

import os
import signal
import threading

from layerwatch.daemon.wishes import Wish, Wishes


def test_many_reloads_are_one_and_an_end_overtakes_them() -> None:
    wishes = Wishes()
    for _ in range(5):
        wishes.put(Wish.RELOAD)

    assert wishes.next() is Wish.RELOAD

    wishes.put(Wish.RELOAD)
    wishes.put(Wish.STOP)
    wishes.put(Wish.RELOAD)

    assert wishes.next() is Wish.STOP


def test_signals_are_wishes_while_that_is_asked_for_and_as_before_afterwards() -> None:
    wishes = Wishes()
    before = signal.getsignal(signal.SIGHUP)

    with wishes.from_signals(signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGHUP)
        assert wishes.next() is Wish.RELOAD
        os.kill(os.getpid(), signal.SIGTERM)
        assert wishes.next() is Wish.STOP

    assert signal.getsignal(signal.SIGHUP) is before


def test_a_wish_of_another_thread_ends_the_wait() -> None:
    wishes = Wishes()
    other = threading.Timer(0.05, wishes.put, [Wish.STOP])
    other.start()

    assert wishes.next() is Wish.STOP
    other.join()
