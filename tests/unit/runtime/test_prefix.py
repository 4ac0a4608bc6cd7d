"""The prefix cache: names of pages, who is told what, and what is never found."""

from __future__ import annotations

import pytest
from amdnfs_runtime import prefix
from amdnfs_runtime.pages import InternalError, PagePool
from amdnfs_runtime.prefix import ROOT_HASH, PageHashes, PrefixCache, page_hash


class Told:
    """A cache of four pages with two tokens each, and what its hooks were told."""

    def __init__(self) -> None:
        self.stored: list[tuple[tuple[int, ...], int, tuple[int, ...]]] = []
        self.removed: list[tuple[int, ...]] = []
        self.pool = PagePool(num_pages=5, page_tokens=2)
        self.cache = PrefixCache(
            self.pool, on_stored=lambda *told: self.stored.append(told), on_removed=self.removed.append
        )

    def put(self, tokens: list[int]) -> tuple[list[int], PageHashes]:
        pages = self.pool.allocate(len(tokens) // 2)
        hashes = PageHashes(tokens, 2)
        self.cache.store(hashes, pages, 0, len(pages))
        self.pool.free(pages)
        self.cache.check_integrity()
        return pages, hashes


def test_names_are_the_same_everywhere_and_depend_on_all_that_came_before() -> None:
    # Made with: printf '\0\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0' | b2sum -l 64
    assert page_hash(ROOT_HASH, (1, 2)).to_bytes(8, "little").hex() == "a8b47425857d35ff"
    assert len({page_hash(0, (1, 2)), page_hash(0, (2, 1)), page_hash(1, (1, 2)), page_hash(0, (1, 2, 0))}) == 4
    tokens = [1, 2, 3, 4]
    hashes = PageHashes(tokens, 2)
    first = page_hash(ROOT_HASH, (1, 2))
    assert hashes.page(1) == (page_hash(first, (3, 4)), first, (3, 4))
    tokens += [5, 6]
    assert hashes.page(2)[2] == (5, 6)


def test_pages_are_found_by_the_longest_beginning() -> None:
    told = Told()
    pages, hashes = told.put([1, 2, 3, 4, 5, 6])
    assert told.cache.match(hashes, 3) == pages
    assert told.cache.match(hashes, 2) == pages[:2]
    assert told.cache.match(PageHashes([1, 2, 3, 4, 9, 9], 2), 3) == pages[:2]
    assert told.cache.match(PageHashes([3, 4, 5, 6], 2), 2) == []


def test_hooks_are_told_what_comes_and_goes() -> None:
    told = Told()
    _, hashes = told.put([1, 2, 3, 4])
    names = tuple(hashes.page(index)[0] for index in range(2))
    assert told.stored == [(names, ROOT_HASH, (1, 2, 3, 4))]
    _, longer = told.put([1, 2, 3, 4, 5, 6])
    third = longer.page(2)[0]
    assert told.removed == [(names[1],)], "the third page took the one that was idle longest"
    assert told.stored[1:] == [((names[1], third), names[0], (3, 4, 5, 6))], "the first was known"
    told.cache.clear()
    assert sorted(told.removed[-1]) == sorted((*names, third))
    told.pool.check_integrity()
    assert (told.pool.num_idle, told.cache.num_pages) == (0, 0)


def test_the_end_of_a_text_goes_before_its_beginning_and_the_unused_before_the_used() -> None:
    told = Told()
    first, hashes = told.put([1, 2, 3, 4])
    second, _ = told.put([5, 6, 7, 8])
    told.pool.acquire(first)
    told.pool.free(first)
    assert told.pool.allocate(3) == [second[1], second[0], first[1]]
    assert told.cache.match(hashes, 2) == first[:1]


def test_an_equal_name_of_another_text_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "page_hash", lambda parent, tokens: 7)
    told = Told()
    pages, hashes = told.put([1, 2])
    assert told.cache.match(hashes, 1) == pages
    assert told.cache.match(PageHashes([3, 4], 2), 1) == []
    told.put([3, 4])
    assert told.cache.num_pages == 1


def test_check_integrity_names_the_damage() -> None:
    told = Told()
    pages, _ = told.put([1, 2])
    told.pool.forget(pages)
    with pytest.raises(InternalError, match=r"pages of the prefix cache that the pool does not keep: \[1\]"):
        told.cache.check_integrity()
    told.cache._names[3] = 3
    with pytest.raises(InternalError, match="names and pages of the prefix cache do not agree"):
        told.cache.check_integrity()
