"""What is known of feeds: how far they have landed, and how their writers are."""

from __future__ import annotations

from analyzer.feeds import BEATING, ENDED, FOREVER, GONE, STALE, UNKNOWN, Feeds
from analyzer.region import SECOND
from analyzer.rows import Batch, Feed, Loss

T = 1_800_000_000 * SECOND


def feed(s: float, written: int, shipped: int, *, alive: bool = True, beat: float | None = None, lost: int = 0) -> Feed:
    ts = T + int(s * SECOND)
    heartbeat = ts if beat is None else T + int(beat * SECOND)
    return Feed(ts, "n", 0, 2, "boot", heartbeat, written, shipped, lost, alive)


def test_unknown_nodes_have_nothing_to_wait_for() -> None:
    feeds = Feeds()
    assert feeds.status("n") == UNKNOWN
    assert feeds.landed("n") == FOREVER


def test_landed_follows_what_is_shipped() -> None:
    feeds = Feeds()
    feeds.add(feed(0, 10, 4))
    assert feeds.landed("n") == 0
    feeds.add(feed(1, 20, 10))
    assert feeds.landed("n") == T
    feeds.add_batch(Batch("n", 0, "boot", 20))
    assert feeds.landed("n") == T + SECOND
    feeds.add(feed(0.5, 1, 1))  # an old report again
    assert feeds.landed("n") == T + SECOND


def test_a_dead_writer_is_complete_once_all_is_shipped() -> None:
    feeds = Feeds()
    feeds.add(feed(0, 10, 4, alive=False))
    assert feeds.landed("n") == 0
    assert feeds.status("n") == ENDED
    feeds.add(feed(1, 10, 10, alive=False))
    assert feeds.landed("n") == FOREVER


def test_a_stopped_worker_is_stale_and_a_missing_report_is_gone() -> None:
    feeds = Feeds()
    feeds.add(feed(0, 1, 1))
    assert feeds.status("n") == BEATING
    feeds.add(feed(5, 1, 1, beat=1))
    assert feeds.status("n") == STALE
    feeds.add(Feed(T + 20 * SECOND, "other", 0, 2, "b", T + 20 * SECOND, 0, 0, 0, True))
    assert feeds.status("n") == GONE
    assert feeds.silent_since("n") == T + 5 * SECOND


def test_a_new_boot_counts_and_the_old_one_does_not() -> None:
    feeds = Feeds()
    feeds.add(feed(0, 1, 1, alive=False))
    feeds.add(Feed(T + 3 * SECOND, "n", 0, 2, "boot-2", T + 3 * SECOND, 0, 0, 0, True))
    feeds.add(feed(4, 1, 1, alive=False))
    assert feeds.status("n") == BEATING


def test_losses_lie_between_two_reports() -> None:
    feeds = Feeds()
    feeds.add(feed(0, 1, 1))
    feeds.add(feed(1, 9, 9, lost=5))
    assert feeds.lost_between("n", T, T + 10) == 5
    assert feeds.lost_between("n", T + 2 * SECOND, T + 3 * SECOND) == 0
    feeds.add_loss(Loss(T + 30 * SECOND, "n", 0, "boot", 2))
    feeds.add_loss(Loss(T + 30 * SECOND, "n", 0, "boot", 2))
    assert feeds.lost_between("n", T + 28 * SECOND, T + 29 * SECOND) == 2
    assert feeds.lost_total() == 5


def test_every_worker_of_a_large_node_is_followed_and_former_boots_are_forgotten() -> None:
    feeds = Feeds()
    for second in range(40):
        for worker in range(24):
            feeds.add(feed(second, 10, 10)._replace(worker=worker, boot_id="new"))
    assert feeds.lost_between("n", 0, T + 60 * SECOND) == 0
    assert len(feeds._taps["n"]) == 24
    stopped = feed(39, 10, 10, beat=1)._replace(worker=23, boot_id="new", ts_ns=T + 40 * SECOND)
    feeds.add(stopped)
    assert feeds.status("n") == STALE
    for boot in range(50):
        feeds.add(feed(100 + boot, 1, 1)._replace(boot_id=f"boot-{boot}"))
    assert len(feeds._taps["n"]) <= 24
    assert ("boot-49", 0) in feeds._taps["n"]
