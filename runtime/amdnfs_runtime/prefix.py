"""The prefix cache: which pages hold the beginning of which text, so that a prompt need not be computed twice.

Only full pages are shared. A page is named by a hash over its tokens and the hash of the page before it, so that one
number stands for the whole text up to the end of the page:

    tokens   [ page 0        ][ page 1        ][ pag
    hash       h0 = H(0, t0)    h1 = H(h0, t1)

    H(parent, tokens) = BLAKE2b with 8 bytes of digest over parent as 8 bytes and each token as 4 bytes, little endian

The tokens are compared, too: an accidental or forged equal hash is a miss, never another text's page. Pages are not
owned: while somebody uses them they are used, and after that idle in the pool, which gives up the least recently used.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amdnfs_runtime.pages import InternalError, PagePool

ROOT_HASH = 0
"""What stands for the page before the first."""

OnStored = Callable[[tuple[int, ...], int, tuple[int, ...]], None]
"""Called with the hashes of consecutive new pages, the hash before them, and all their tokens."""
OnRemoved = Callable[[tuple[int, ...]], None]
"""Called with the hashes of pages that are gone."""


def page_hash(parent: int, tokens: Sequence[int]) -> int:
    """Name of a page.

    Args:
        parent: Name of the page before; `ROOT_HASH` for the first.
        tokens: The tokens of the page; each >= 0 and < 2**32.

    Returns:
        A number >= 0 and < 2**64, the same in every process.

    >>> hex(page_hash(ROOT_HASH, (1, 2, 3, 4)))
    '0x9222804e3e39ba2'
    """
    content = struct.pack(f"<Q{len(tokens)}I", parent, *tokens)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


class PageHashes:
    """Names of the full pages of a text that grows; each is computed once."""

    __slots__ = ("_hashes", "_page_tokens", "_tokens")

    def __init__(self, tokens: list[int], page_tokens: int) -> None:
        """Begins with no name.

        Args:
            tokens: The text; may grow, but not change.
            page_tokens: Tokens of a page.
        """
        self._tokens = tokens
        self._page_tokens = page_tokens
        self._hashes = [ROOT_HASH]

    def page(self, index: int) -> tuple[int, int, tuple[int, ...]]:
        """Name, name of the page before, and tokens of a page, which must be full."""
        while len(self._hashes) <= index + 1:
            self._hashes.append(page_hash(self._hashes[-1], self._page(len(self._hashes) - 1)))
        return self._hashes[index + 1], self._hashes[index], self._page(index)

    def _page(self, index: int) -> tuple[int, ...]:
        return tuple(self._tokens[index * self._page_tokens : (index + 1) * self._page_tokens])


@dataclass(frozen=True, slots=True)
class _Entry:
    page: int
    parent: int
    tokens: tuple[int, ...]


class PrefixCache:
    """Finds pages by the text that they hold."""

    def __init__(
        self, pool: PagePool, *, on_stored: OnStored | None = None, on_removed: OnRemoved | None = None
    ) -> None:
        """Starts empty.

        Args:
            pool: The pool whose pages it knows; from now on it tells this cache what it gives up.
            on_stored: Told what came in; must neither block nor raise.
            on_removed: Told what went out; must neither block nor raise.
        """
        self._pool = pool
        self._entries: dict[int, _Entry] = {}
        self._names: dict[int, int] = {}
        self.on_stored = on_stored
        self.on_removed = on_removed
        pool.on_reclaim = self._drop

    @property
    def num_pages(self) -> int:
        """Pages that can be found."""
        return len(self._entries)

    def match(self, hashes: PageHashes, most: int) -> list[int]:
        """Pages that hold the beginning of a text, in order; takes no reference to them.

        Args:
            hashes: The text.
            most: Most pages wanted; the text must fill them.
        """
        pages: list[int] = []
        while len(pages) < most:
            name, parent, tokens = hashes.page(len(pages))
            entry = self._entries.get(name)
            if entry is None or entry.parent != parent or entry.tokens != tokens:
                break
            pages.append(entry.page)
        return pages

    def store(self, hashes: PageHashes, pages: Sequence[int], begin: int, end: int) -> None:
        """Makes computed pages known; those whose text is known already stay private.

        Args:
            hashes: The text.
            pages: The pages of the text; those from `begin` on are in use.
            begin: First page to make known.
            end: One past the last.
        """
        run: list[int] = []
        run_tokens: list[int] = []
        run_parent = ROOT_HASH
        for index in range(begin, end):
            name, parent, tokens = hashes.page(index)
            if name in self._entries or pages[index] in self._names:
                self._tell_stored(run, run_parent, run_tokens)
                run, run_tokens = [], []
                continue
            self._entries[name] = _Entry(pages[index], parent, tokens)
            self._names[pages[index]] = name
            self._pool.keep((pages[index],))
            if not run:
                run_parent = parent
            run.append(name)
            run_tokens.extend(tokens)
        self._tell_stored(run, run_parent, run_tokens)

    def clear(self) -> None:
        """Forgets all pages; those in use stay with their requests."""
        pages = list(self._names)
        self._pool.forget(pages)
        self._drop(pages)

    def check_integrity(self) -> None:
        """Checks that names and pages agree; for tests, as it is O(pages).

        Raises:
            InternalError: They do not, or a page known here is plainly free.
        """
        if {entry.page: name for name, entry in self._entries.items()} != self._names:
            raise InternalError("names and pages of the prefix cache do not agree")
        lost = sorted(page for page in self._names if not self._pool.is_kept(page))
        if lost:
            raise InternalError(f"pages of the prefix cache that the pool does not keep: {lost}")

    def _tell_stored(self, names: list[int], parent: int, tokens: list[int]) -> None:
        if names and self.on_stored is not None:
            self.on_stored(tuple(names), parent, tuple(tokens))

    def _drop(self, pages: list[int]) -> None:
        names = tuple(self._names.pop(page) for page in pages)
        for name in names:
            del self._entries[name]
        if names and self.on_removed is not None:
            self.on_removed(names)
