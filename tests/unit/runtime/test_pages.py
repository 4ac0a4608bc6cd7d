"""The page pool against a slow model, its messages, and the pages of one request."""

from __future__ import annotations

import numpy as np
import pytest
from amdnfs_runtime.errors import CapacityError
from amdnfs_runtime.pages import InternalError, PagePool, RequestPages
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

NUM_PAGES = 9


class PoolMachine(RuleBasedStateMachine):
    """Random calls; the model is a list with one entry for every reference."""

    def __init__(self):
        super().__init__()
        self.pool = PagePool(num_pages=NUM_PAGES, page_tokens=4)
        self.references: list[int] = []
        self.kept: set[int] = set()
        self.idle: list[int] = []
        self.reclaimed: list[int] = []
        self.pool.on_reclaim = self.reclaimed.extend

    def snapshot(self):
        return [self.pool.refcount(page) for page in range(1, NUM_PAGES)]

    def expected(self):
        return [self.references.count(page) for page in range(1, NUM_PAGES)]

    @rule(num_pages=st.integers(0, NUM_PAGES + 2))
    def allocate(self, num_pages):
        num_free = NUM_PAGES - 1 - len(set(self.references))
        if num_pages > num_free:
            with pytest.raises(CapacityError, match=f"{num_pages} pages of 4 tokens needed, {num_free} free of 8"):
                self.pool.allocate(num_pages)
            return
        num_plain = num_free - len(self.idle)
        oldest = self.idle[: max(0, num_pages - num_plain)]
        self.reclaimed.clear()
        pages = self.pool.allocate(num_pages)
        assert len(set(pages)) == len(pages) == num_pages
        assert not set(pages) & {0, *self.references}
        assert [page for page in pages if page in self.idle] == oldest == self.reclaimed
        self.idle = self.idle[len(oldest) :]
        self.kept -= set(oldest)
        self.references += pages

    @precondition(lambda self: self.references)
    @rule(data=st.data())
    def free(self, data):
        order = data.draw(st.permutations(self.references))
        pages = order[: data.draw(st.integers(0, len(order)))]
        self.pool.free(pages)
        for page in reversed(pages):
            self.references.remove(page)
            if page in self.kept and page not in self.references:
                self.idle.append(page)

    @precondition(lambda self: self.references)
    @rule(data=st.data())
    def share(self, data):
        pages = data.draw(st.lists(st.sampled_from(self.references), max_size=4))
        self.pool.share(pages)
        self.references += pages

    @precondition(lambda self: self.references)
    @rule(data=st.data())
    def keep(self, data):
        pages = data.draw(st.lists(st.sampled_from(self.references), max_size=4))
        self.pool.keep(pages)
        self.kept.update(pages)

    @rule(data=st.data())
    def acquire(self, data):
        pages = data.draw(st.lists(st.sampled_from([*self.references, *self.idle, 1]), max_size=4))
        if 1 in pages and 1 not in [*self.references, *self.idle]:
            with pytest.raises(ValueError, match="page 1 is free and its content is gone"):
                self.pool.acquire(pages)
            return
        self.pool.acquire(pages)
        self.references += pages
        self.idle = [page for page in self.idle if page not in pages]

    @rule(pages=st.lists(st.integers(1, NUM_PAGES - 1), max_size=4))
    def forget(self, pages):
        self.pool.forget(pages)
        self.kept -= set(pages)
        self.idle = [page for page in self.idle if page not in pages]

    @rule(page=st.integers(1, NUM_PAGES - 1))
    def keep_free_page(self, page):
        if page in self.references:
            return
        with pytest.raises(ValueError, match=f"page {page} is free: it has no content to keep"):
            self.pool.keep([*self.references, page])

    @precondition(lambda self: self.references)
    @rule(data=st.data())
    def free_once_too_often(self, data):
        page = data.draw(st.sampled_from(self.references))
        others = [other for other in self.references if other != page]
        with pytest.raises(ValueError, match=f"page {page} is freed twice"):
            self.pool.free(others + [page] * (self.references.count(page) + 1))

    @rule(page=st.integers(1, NUM_PAGES - 1))
    def share_free_page(self, page):
        if page in self.references:
            return
        with pytest.raises(ValueError, match=f"page {page} is free and cannot be shared"):
            self.pool.share([*self.references, page])

    @rule(page=st.sampled_from([-1, 0, NUM_PAGES, 10**6]), share=st.booleans())
    def name_page_of_no_pool(self, page, share):
        call = self.pool.share if share else self.pool.free
        with pytest.raises(ValueError, match=rf"page {page} is (the null page|not of this pool)"):
            call([*self.references, page])

    @invariant()
    def agrees_with_model(self):
        self.pool.check_integrity()
        assert self.snapshot() == self.expected()
        assert self.pool.num_used == len(set(self.references))
        assert self.pool.num_idle == len(self.idle)
        assert {page for page in range(1, NUM_PAGES) if self.pool.is_kept(page)} == self.kept
        assert self.pool.num_free == NUM_PAGES - 1 - self.pool.num_used


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


def test_new_pool_hands_out_ascending_and_freed_pages_come_back_in_order():
    pool = PagePool(num_pages=6, page_tokens=1)
    assert pool.allocate(3) == [1, 2, 3]
    pool.free([2, 3])
    assert pool.allocate(3) == [2, 3, 4]


def test_shared_page_is_free_only_after_the_last_reference():
    pool = PagePool(num_pages=2, page_tokens=1)
    pages = pool.allocate(1)
    pool.share(pages)
    pool.free(pages)
    assert (pool.num_free, pool.refcount(pages[0])) == (0, 1)
    pool.free(pages)
    assert (pool.num_free, pool.refcount(pages[0])) == (1, 0)


@pytest.mark.parametrize(("num_tokens", "num_pages"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_pages_for(num_tokens, num_pages):
    assert PagePool(num_pages=2, page_tokens=16).pages_for(num_tokens) == num_pages


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PagePool(num_pages=1, page_tokens=1), "num_pages must be an integer >= 2, not 1"),
        (lambda: PagePool(num_pages=2, page_tokens=0), "page_tokens must be an integer >= 1, not 0"),
        (lambda: PagePool(num_pages=2, page_tokens=1.5), "page_tokens must be an integer >= 1, not 1.5"),
        (lambda: PagePool(num_pages=2, page_tokens=1).allocate(-1), "num_pages must be an integer >= 0, not -1"),
        (lambda: PagePool(num_pages=2, page_tokens=1).allocate(True), "num_pages must be an integer >= 0, not True"),
        (lambda: PagePool(num_pages=2, page_tokens=1).pages_for(-1), "num_tokens must be an integer >= 0, not -1"),
        (lambda: PagePool(num_pages=2, page_tokens=1).refcount(True), "page True is not an integer"),
    ],
)
def test_wrong_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda pool: pool._free.append(pool._free[0]), r"listed as free more than once: \[4\]"),
        (lambda pool: pool._free.append(1), r"both free and used: \[1\]"),
        (lambda pool: pool._free.append(0), "the null page 0 is free"),
        (lambda pool: pool._refcounts.update({0: 1}), "the null page 0 is used"),
        (lambda pool: pool._refcounts.update({7: 1}), r"pages outside 1..4: \[7\]"),
        (lambda pool: pool._refcounts.update({1: 0}), r"used pages without references: \[1\]"),
        (lambda pool: pool._idle.update({1: None}), r"idle pages that are free otherwise, used or not kept: \[1\]"),
        (lambda pool: pool._kept.add(3), r"kept pages that are neither idle nor used: \[3\]"),
        (lambda pool: pool._free.pop(), "1 free \\+ 2 used pages are not 4"),
        (lambda pool: pool._refcounts.pop(2), "2 free \\+ 1 used pages are not 4"),
    ],
)
def test_check_integrity_names_the_damage(damage, message):
    pool = PagePool(num_pages=5, page_tokens=1)
    pool.allocate(2)
    pool.check_integrity()
    damage(pool)
    with pytest.raises(InternalError, match=message):
        pool.check_integrity()


def test_request_pages_grow_only_when_a_page_is_full():
    request_pages = RequestPages(PagePool(num_pages=5, page_tokens=4))
    assert request_pages.pages == ()
    for num_tokens, pages in [(0, ()), (1, (1,)), (4, (1,)), (5, (1, 2)), (2, (1, 2)), (16, (1, 2, 3, 4))]:
        request_pages.ensure(num_tokens)
        assert request_pages.pages == pages
        assert request_pages.token_capacity == 4 * len(pages)


def test_request_pages_keep_what_they_have_when_the_pool_is_full():
    pool = PagePool(num_pages=3, page_tokens=4)
    request_pages = RequestPages(pool)
    request_pages.ensure(4)
    with pytest.raises(CapacityError, match="2 pages of 4 tokens needed, 1 free of 2"):
        request_pages.ensure(12)
    assert request_pages.pages == (1,)
    assert pool.num_free == 1


def test_request_pages_release_twice_drops_one_reference():
    pool = PagePool(num_pages=3, page_tokens=4)
    request_pages = RequestPages(pool)
    request_pages.ensure(8)
    pool.share(request_pages.pages)
    request_pages.release()
    request_pages.release()
    assert request_pages.pages == ()
    assert [pool.refcount(1), pool.refcount(2)] == [1, 1]


def test_request_pages_as_row():
    request_pages = RequestPages(PagePool(num_pages=4, page_tokens=4))
    request_pages.ensure(8)
    row = request_pages.as_row(4)
    assert row.dtype == np.int32
    assert row.tolist() == [1, 2, 0, 0]
    row[:] = 9
    assert request_pages.as_row(2).tolist() == [1, 2]
    with pytest.raises(ValueError, match="2 pages do not fit into a page table row of 1"):
        request_pages.as_row(1)


def test_request_pages_adopt_what_others_computed_once():
    pool = PagePool(num_pages=13, page_tokens=4)
    first, second = RequestPages(pool), RequestPages(pool)
    first.ensure(40)
    pool.keep(first.pages)
    second.adopt(first.pages[:9])
    second.ensure(44)
    assert second.pages == (*range(1, 10), 11, 12)
    first.release()
    assert (pool.num_idle, second.all().tolist()) == (1, list(second.pages))
    assert second.first(2).tolist() == [1, 2]
    with pytest.raises(ValueError, match="11 pages are held already: only a request without pages can adopt some"):
        second.adopt([1])
    second.release()
    assert pool.num_free == 12
