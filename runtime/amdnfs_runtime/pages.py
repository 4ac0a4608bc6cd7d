"""Who owns which page of the KV pool: hand out, share and take back page numbers.

Only numbers are kept here. The pool tensors themselves, and what is written into a page, are not this module's job.

    page number    0     1     2     3    ...   num_pages - 1
                 null   [------- handed out by allocate -----]

The null page fills the unused entries of a page table: a program may read or write it, and nothing depends on it.

A page without references is free. If its content was marked as worth keeping it is *idle*: still free, but handed out
only when no other page is left, the one that was idle longest first, and until then `acquire` brings it back.

    allocate -> used -> free (drop the last reference) -> free list
                  ^                                    -> idle, if kept -> acquire -> used
                                                                        -> allocate: content lost, `on_reclaim`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.errors import CapacityError

NULL_PAGE = 0
"""The page that is never handed out; pads page tables."""


_FIRST_ROW_PAGES = 8


class InternalError(AssertionError):
    """An invariant of ours is broken: a bug in this package, never the fault of an input."""


class PagePool:
    """Reference-counted page numbers of one KV pool.

    Hand-out is last in, first out: it costs O(1), and the page freed last is the one most likely to be in the device's
    last-level cache. A new pool hands out 1, 2, 3, ... and a list of pages that is freed and allocated again comes back
    in the same order, so page numbers depend only on the order of the calls.

    >>> pool = PagePool(num_pages=5, page_tokens=16)
    >>> pool.allocate(pool.pages_for(20))
    [1, 2]
    >>> pool.num_free, pool.num_used
    (2, 2)
    """

    def __init__(self, num_pages: int, page_tokens: int) -> None:
        """Build a pool in which every page but the null page is free.

        Args:
            num_pages: Pages of the pool tensor, the null page included; at least 2.
            page_tokens: Tokens that one page holds; at least 1.

        Raises:
            ValueError: A count is not an integer or below its least value.
        """
        _check_count("num_pages", num_pages, least=2)
        _check_count("page_tokens", page_tokens, least=1)
        self._num_pages = num_pages
        self._page_tokens = page_tokens
        self._free = list(range(num_pages - 1, NULL_PAGE, -1))
        self._refcounts: dict[int, int] = {}
        self._kept: set[int] = set()
        self._idle: dict[int, None] = {}  # in the order in which they became idle
        self.on_reclaim: Callable[[list[int]], None] | None = None
        """Called with the idle pages whose content an `allocate` gives up."""

    @property
    def num_pages(self) -> int:
        """Pages of the pool tensor, the null page included."""
        return self._num_pages

    @property
    def page_tokens(self) -> int:
        """Tokens that one page holds."""
        return self._page_tokens

    @property
    def num_free(self) -> int:
        """Pages that can be allocated now, the idle ones included."""
        return len(self._free) + len(self._idle)

    @property
    def num_idle(self) -> int:
        """Free pages whose content is kept until they are needed."""
        return len(self._idle)

    @property
    def num_used(self) -> int:
        """Pages with at least one reference; a shared page counts once."""
        return len(self._refcounts)

    def pages_for(self, num_tokens: int) -> int:
        """Return how many pages hold `num_tokens` tokens.

        Raises:
            ValueError: `num_tokens` is not an integer or negative.
        """
        _check_count("num_tokens", num_tokens, least=0)
        return -(-num_tokens // self._page_tokens)

    def refcount(self, page: int) -> int:
        """Return the number of references to `page`, 0 when it is free.

        Raises:
            ValueError: `page` is the null page or not a page of this pool.
        """
        self._check_page(page)
        return self._refcounts.get(page, 0)

    def allocate(self, num_pages: int) -> list[int]:
        """Take `num_pages` free pages, each with one reference.

        Returns:
            Page numbers, none of them the null page, all different.

        Raises:
            CapacityError: Fewer pages are free; nothing was taken.
            ValueError: `num_pages` is not an integer or negative.
        """
        _check_count("num_pages", num_pages, least=0)
        if num_pages > self.num_free:
            raise CapacityError(
                f"KV pool is full: {num_pages} pages of {self._page_tokens} tokens needed, {self.num_free} free "
                f"of {self._num_pages - 1}; wait for requests to finish, shorten the request or enlarge the pool"
            )
        num_reclaimed = max(0, num_pages - len(self._free))
        pages = [self._free.pop() for _ in range(num_pages - num_reclaimed)]
        if num_reclaimed:
            pages += self._reclaim(num_reclaimed)
        self._refcounts.update(dict.fromkeys(pages, 1))
        return pages

    def share(self, pages: Sequence[int]) -> None:
        """Add one reference to each page; a page named twice gets two.

        Raises:
            ValueError: A page is not of this pool or not in use; nothing was changed.
        """
        for page in pages:
            if self.refcount(page) == 0:
                raise ValueError(f"page {page} is free and cannot be shared")
        for page in pages:
            self._refcounts[page] += 1

    def acquire(self, pages: Sequence[int]) -> None:
        """Add one reference to each page, which is in use or idle; idle pages are in use again.

        Raises:
            ValueError: A page is not of this pool, or free without being idle; nothing was changed.
        """
        for page in pages:
            if self.refcount(page) == 0 and page not in self._idle:
                raise ValueError(f"page {page} is free and its content is gone")
        for page in pages:
            self._idle.pop(page, None)
            self._refcounts[page] = self._refcounts.get(page, 0) + 1

    def keep(self, pages: Sequence[int]) -> None:
        """Mark the content of used pages as worth keeping after their last reference is dropped.

        Raises:
            ValueError: A page is not of this pool or not in use; nothing was changed.
        """
        for page in pages:
            if self.refcount(page) == 0:
                raise ValueError(f"page {page} is free: it has no content to keep")
        self._kept.update(pages)

    def is_kept(self, page: int) -> bool:
        """Return whether the content of `page` is marked as worth keeping."""
        return page in self._kept

    def forget(self, pages: Sequence[int]) -> None:
        """Take the mark of `keep` away; idle pages among them become plain free pages, without `on_reclaim`."""
        for page in pages:
            self._kept.discard(page)
            if page in self._idle:
                del self._idle[page]
                self._free.append(page)

    def free(self, pages: Sequence[int]) -> None:
        """Drop one reference of each page; a page without references can be allocated again.

        Of idle pages those named last are given up first: the end of a text before its beginning.

        Raises:
            ValueError: A page is not of this pool, or has fewer references than are dropped; nothing was changed.
        """
        for page, num_dropped in Counter(pages).items():
            num_references = self.refcount(page)
            if num_dropped > num_references:
                raise ValueError(
                    f"page {page} is freed twice: {num_dropped} references dropped, {num_references} exist"
                )
        for page in reversed(pages):
            self._refcounts[page] -= 1
            if self._refcounts[page] == 0:
                del self._refcounts[page]
                if page in self._kept:
                    self._idle[page] = None
                else:
                    self._free.append(page)

    def check_integrity(self) -> None:
        """Check the pool's invariants; for tests and for debugging, as it is O(pages).

        Raises:
            InternalError: A page is lost, listed twice, both free and used, out of range, without references but
                used, or the null page is among them.
        """
        repeated = sorted(page for page, times in Counter(self._free).items() if times > 1)
        if repeated:
            raise InternalError(f"pages listed as free more than once: {repeated}")
        both = sorted(set(self._free) & set(self._refcounts))
        if both:
            raise InternalError(f"pages both free and used: {both}")
        if set(self._idle) & (set(self._free) | set(self._refcounts)) or not set(self._idle) <= self._kept:
            raise InternalError(f"idle pages that are free otherwise, used or not kept: {sorted(self._idle)}")
        if not self._kept <= set(self._idle) | set(self._refcounts):
            raise InternalError(f"kept pages that are neither idle nor used: {sorted(self._kept)}")
        known = set(self._free) | set(self._idle) | set(self._refcounts)
        if NULL_PAGE in known:
            raise InternalError(f"the null page {NULL_PAGE} is {'free' if NULL_PAGE in self._free else 'used'}")
        unknown = sorted(page for page in known if not NULL_PAGE < page < self._num_pages)
        if unknown:
            raise InternalError(f"pages outside 1..{self._num_pages - 1}: {unknown}")
        unreferenced = sorted(page for page, references in self._refcounts.items() if references <= 0)
        if unreferenced:
            raise InternalError(f"used pages without references: {unreferenced}")
        if self.num_free + self.num_used != self._num_pages - 1:
            raise InternalError(f"{self.num_free} free + {self.num_used} used pages are not {self._num_pages - 1}")

    def _reclaim(self, num_pages: int) -> list[int]:
        """Give up the content of the pages that were idle longest."""
        pages = list(islice(self._idle, num_pages))
        for page in pages:
            del self._idle[page]
            self._kept.discard(page)
        if self.on_reclaim is not None:
            self.on_reclaim(list(pages))
        return pages

    def _check_page(self, page: int) -> None:
        if isinstance(page, bool) or not isinstance(page, (int, np.integer)):
            raise ValueError(f"page {page!r} is not an integer")
        if page == NULL_PAGE:
            raise ValueError(f"page {page} is the null page, which is never handed out")
        if not NULL_PAGE < page < self._num_pages:
            raise ValueError(f"page {page} is not of this pool: its pages are 1..{self._num_pages - 1}")


class RequestPages:
    """The pages of one request, in the order of its tokens.

    Token `t` of the request lies in `pages[t // page_tokens]` at offset `t % page_tokens`.
    """

    def __init__(self, pool: PagePool) -> None:
        """Start with no page.

        Args:
            pool: Where pages come from and go back to.
        """
        self._pool = pool
        self._pages: list[int] = []
        self._row = np.zeros(_FIRST_ROW_PAGES, np.int32)

    @property
    def pages(self) -> tuple[int, ...]:
        """Page numbers in the order of the tokens."""
        return tuple(self._pages)

    @property
    def num_pages(self) -> int:
        """Pages held now."""
        return len(self._pages)

    @property
    def token_capacity(self) -> int:
        """Tokens that fit into the pages held now."""
        return len(self._pages) * self._pool.page_tokens

    def ensure(self, num_tokens: int) -> None:
        """Allocate what is missing for `num_tokens` tokens in all; never gives a page back.

        Raises:
            CapacityError: Too few pages are free; nothing was changed.
            ValueError: `num_tokens` is not an integer or negative.
        """
        num_missing = self._pool.pages_for(num_tokens) - len(self._pages)
        if num_missing > 0:
            self._append(self._pool.allocate(num_missing))

    def adopt(self, pages: Sequence[int]) -> None:
        """Take another reference to pages with the first tokens of this request, computed for another one.

        Raises:
            ValueError: Pages are held already, or one cannot be acquired; nothing was changed.
        """
        if self._pages:
            raise ValueError(f"{len(self._pages)} pages are held already: only a request without pages can adopt some")
        self._pool.acquire(pages)
        self._append(pages)

    def release(self) -> None:
        """Drop this request's reference to all its pages; a second call does nothing."""
        self._pool.free(self._pages)
        self._pages = []

    def as_row(self, width: int) -> npt.NDArray[np.int32]:
        """Return the page numbers as one row of a page table.

        Args:
            width: Entries of the row; the unused ones hold the null page.

        Returns:
            A new array [width] int32.

        Raises:
            ValueError: More pages are held than `width`.
        """
        if width < len(self._pages):
            raise ValueError(f"{len(self._pages)} pages do not fit into a page table row of {width}")
        row = np.full(width, NULL_PAGE, dtype=np.int32)
        row[: len(self._pages)] = self._pages
        return row

    def first(self, num_pages: int) -> npt.NDArray[np.int32]:
        """Return the first pages [num_pages] int32, a view that is good until pages come or go; at most those held."""
        return self.all()[:num_pages]

    def all(self) -> npt.NDArray[np.int32]:
        """Return all pages [num_pages] int32, a view that is good until pages come or go."""
        return self._row[: len(self._pages)]

    def _append(self, pages: Sequence[int]) -> None:
        begin, end = len(self._pages), len(self._pages) + len(pages)
        if end > self._row.size:
            self._row = np.pad(self._row, (0, max(end, 2 * self._row.size) - self._row.size))
        self._row[begin:end] = pages
        self._pages.extend(pages)


def _check_count(name: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, not {value!r}")
