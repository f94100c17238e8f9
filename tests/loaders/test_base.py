import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifarfast.errors import UserError
from cifarfast.loaders.base import Feed, check_count, effective_workers
from tests.commands import printed

PATH = Path("train.beton")


def make(**fields: Any) -> Feed:
    return Feed(**{"path": PATH, "images": 103, "batch_size": 8, "train": True, "seed": 3, **fields})


@st.composite
def feeds(draw: st.DrawFn, train: bool) -> Feed:
    images = draw(st.integers(1, 200))
    limit = draw(st.none() | st.integers(1, images))
    count = limit or images
    world_size = draw(st.integers(1, min(4, count) if train else 4))
    largest = count // world_size if train else 64
    return Feed(
        path=PATH,
        images=images,
        limit=limit,
        batch_size=draw(st.integers(1, largest)),
        seed=draw(st.integers(0, 9)),
        train=train,
        world_size=world_size,
        rank=draw(st.integers(0, world_size - 1)),
    )


def shares(feed: Feed, epoch: int) -> list[list[list[int]]]:
    """Batches of every rank."""
    fields = {name: getattr(feed, name) for name in ("images", "limit", "batch_size", "seed", "train", "world_size")}
    ranks = [make(**fields, rank=rank) for rank in range(feed.world_size)]
    return [[batch.tolist() for batch in rank.indices(epoch)] for rank in ranks]


@given(feeds(train=True))
def test_training_batches_have_one_shape_and_ranks_partition_each_global_batch(feed: Feed) -> None:
    alone = make(
        images=feed.images, limit=feed.limit, seed=feed.seed, batch_size=feed.batch_size * feed.world_size
    ).indices(5)
    for step, parts in enumerate(zip(*shares(feed, 5), strict=True)):
        assert {len(part) for part in parts} == {feed.batch_size}
        assert [index for part in parts for index in part] == alone[step].tolist()
    used = np.concatenate(alone)
    assert len(set(used.tolist())) == len(used) > feed.count - feed.batch_size * feed.world_size


@given(feeds(train=False))
def test_evaluation_sees_every_image_once_in_the_order_of_the_file(feed: Feed) -> None:
    seen = [index for rank in shares(feed, 0) for batch in rank for index in batch]
    assert seen == sorted(set(seen))
    assert len(seen) == feed.count
    assert all(len(batch) == feed.batch_size for rank in shares(feed, 0) for batch in rank[:-1])


@given(feeds(train=True) | feeds(train=False))
def test_batches_is_the_number_of_batches(feed: Feed) -> None:
    assert feed.batches() == len(feed.indices(0))


@given(feeds(train=True) | feeds(train=False), st.data())
def test_starting_at_a_batch_gives_the_tail_of_the_epoch(feed: Feed, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, feed.batches()))
    whole = [batch.tolist() for batch in feed.indices(2)]
    assert [batch.tolist() for batch in feed.indices(2, start)] == whole[start:]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.999])
def test_an_epoch_that_takes_a_share_takes_the_hardest_of_those_in_use(share: float) -> None:
    feed, whole = make(limit=80, share=share), make(limit=80)
    losses = np.random.default_rng(0).permutation(103).astype(np.float32)
    taken = np.concatenate(feed.indices(4, losses=losses))
    assert feed.batches() == round(80 * share) // 8 == len(taken) // 8
    everywhere = make(limit=80, train=False).order(0)
    assert sorted(taken) == sorted(everywhere[np.argsort(losses[everywhere])][-len(taken) :])
    of_chance = whole.order(4)
    assert taken.tolist() == [image for image in of_chance if image in taken]
    assert feed.order(4, 2, losses).tolist() == taken[16:].tolist()


def test_without_losses_chance_takes_the_share() -> None:
    feed = make(share=0.5)
    assert feed.order(0).tolist() == make().order(0)[:48].tolist()
    assert feed.order(0, losses=np.ones(103, np.float32)).tolist() == feed.order(0).tolist()
    assert set(feed.order(0)) != set(feed.order(1))


def test_evaluation_has_no_share() -> None:
    assert make(share=0.1, train=False).indices(0)[-1].tolist() == [96, 97, 98, 99, 100, 101, 102]


@given(st.integers(1, 500), st.data())
def test_a_limit_picks_evenly_spaced_images(images: int, data: st.DataObject) -> None:
    limit = data.draw(st.integers(1, images))
    order = make(images=images, limit=limit, train=False).order(0)
    assert len(order) == limit
    assert order[0] == 0
    gaps = np.diff([*order, images])  # the last gap is to the end of the file
    assert gaps.min() >= images // limit
    assert gaps.max() <= -(-images // limit)


def test_the_order_changes_with_seed_and_epoch() -> None:
    orders = [make(seed=seed).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_the_same_in_a_new_process() -> None:
    code = (
        "from pathlib import Path; from cifarfast.loaders.base import Feed;"
        "feed = Feed(path=Path('x'), images=103, batch_size=8, train=True, seed=3); print(feed.order(7).tolist())"
    )
    assert printed(code).strip() == str(make().order(7).tolist())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": 0}, "images must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": -4}, "batch_size must be at least 1, not -4"),
        ({"batch_size": 104}, "batch_size must be at most 103, .* not 104"),
        ({"batch_size": 52, "world_size": 2}, "batch_size must be at most 51, .* not 52"),
        ({"limit": 7}, "batch_size must be at most 7, .* not 8"),
        ({"share": 0.05}, "batch_size must be at most 5, .* not 8"),
        ({"share": 1.5}, "share must be between 0.0 and 1.0, not 1.5"),
        ({"limit": 0}, "limit must be between 1 and 103, not 0"),
        ({"limit": 104}, "limit must be between 1 and 103, not 104"),
        ({"world_size": 0}, "world_size must be at least 1, not 0"),
        ({"rank": -1}, "rank must be between 0 and 0, not -1"),
        ({"rank": 2, "world_size": 2}, "rank must be between 0 and 1, not 2"),
    ],
)
def test_wrong_fields_are_named_with_their_value(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**fields)


@pytest.mark.parametrize("start", [-1, 13])
def test_a_start_outside_the_epoch_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match=f"start must be between 0 and 12, not {start}"):
        make().order(0, start)


def test_a_file_with_another_number_of_images_is_refused() -> None:
    check_count(make(), 103)
    with pytest.raises(UserError, match=r"train.beton holds 102 images where 103 were expected"):
        check_count(make(), 102)


@pytest.mark.parametrize(("asked", "allowed", "given"), [(None, 3, 3), (None, 64, 8), (0, 3, 0), (2, 3, 2), (99, 3, 3)])
def test_workers_are_clamped_to_the_cpus_allowed(
    asked: int | None, allowed: int, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    assert effective_workers(asked) == given
