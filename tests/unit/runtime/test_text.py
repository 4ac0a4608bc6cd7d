"""Streamed text equals the text decoded at once, and is cut before the earliest stop string."""

from __future__ import annotations

import pytest
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.text import Detokenizer, StopMatcher
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

REPLACEMENT = "\ufffd"
UNDERLINE = "\u2581"
GRIN = "\U0001f600"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
CHINESE = "\u4f60\u597d\u4e16\u754c"
ACCENTED = "e\u0301a\u0308\u00e9"
SAMPLE = f" Hello  world {GRIN}{FAMILY} {CHINESE}, {ACCENTED} na\u00efve \u0905\u0928\n\t$x_1$ {REPLACEMENT} end."
SPECIALS = ["<s>", "</s>", "<|end|>"]
RELAXED = settings(max_examples=100, deadline=None, derandomize=True)


def byte_characters():
    """Character that stands for each byte in a byte-level vocabulary, as in GPT-2."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def with_added_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(f"<tool>{CHINESE}", special=False)])
    return tokenizer


def trained_byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([SAMPLE, "hello world hello", CHINESE * 3], trainer)
    return with_added_tokens(tokenizer)


def broken_byte_level():
    """Single bytes, and tokens that begin and end inside a character."""
    characters = byte_characters()
    pieces = [bytes([byte]) for byte in range(256)]
    pieces += [b"\x80\x99\xe2", b"\x98\x80 \xf0\x9f", b"\xf0\x9f", b"\x82\xe2", b"\xe4\xbd", b"\xbf\xbd"]
    pieces += [b" a", b"\xff\xff", b""]
    vocab = {"".join(characters[byte] for byte in piece): i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return with_added_tokens(tokenizer)


def with_byte_fallback(decoder):
    """The vocabulary of a sentencepiece model: bytes, and pieces in which U+2581 stands for a space."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), UNDERLINE, UNDERLINE * 2, f"{UNDERLINE}a", "b", "e"]
    pieces += ["\u0301", f"{UNDERLINE}{CHINESE[0]}", CHINESE[1], GRIN, REPLACEMENT, f"x{REPLACEMENT}", "<0xZZ>"]
    pieces += [".", "", "lo</w>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoder
    return with_added_tokens(tokenizer)


def llama_decoder():
    to_space = decoders.Replace(UNDERLINE, " ")
    return decoders.Sequence([to_space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


TOKENIZERS = {
    "byte-level": trained_byte_level(),
    "byte-level-broken": broken_byte_level(),
    "llama": with_byte_fallback(llama_decoder()),
    "gemma": with_byte_fallback(
        decoders.Sequence([decoders.Replace(UNDERLINE, " "), decoders.ByteFallback(), decoders.Fuse()])
    ),
    "metaspace": with_byte_fallback(decoders.Metaspace()),
    "bytes-then-metaspace": with_byte_fallback(decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])),
    "strip-three": with_byte_fallback(
        decoders.Sequence([decoders.Replace(UNDERLINE, " "), decoders.Fuse(), decoders.Strip(" ", 3, 0)])
    ),
    "no-decoder": with_byte_fallback(None),
    "word-piece": with_byte_fallback(decoders.WordPiece(prefix="b", cleanup=True)),
    "suffix": with_byte_fallback(decoders.BPEDecoder(suffix="</w>")),
}
for_each_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def stream(tokenizer, ids, skip_special_tokens=True):
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@st.composite
def id_lists(draw, vocab):
    """Ids of any kind, mixed with ids from a small set, so that repetitions and runs are common."""
    few = draw(st.lists(st.integers(0, vocab + 2), min_size=1, max_size=4))
    return draw(st.lists(st.one_of(st.integers(0, vocab + 2), st.sampled_from(few)), max_size=80))


@for_each_tokenizer
@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_pieces_of_any_ids_join_to_the_text(name, skip_special_tokens):
    tokenizer = TOKENIZERS[name]

    @RELAXED
    @given(ids=id_lists(tokenizer.get_vocab_size()))
    def check(ids):
        pieces = stream(tokenizer, ids, skip_special_tokens)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    check()


@pytest.mark.parametrize("name", ["byte-level", "byte-level-broken", "llama", "gemma", "bytes-then-metaspace"])
def test_pieces_of_any_bytes_join_to_the_text(name):
    tokenizer = TOKENIZERS[name]
    characters = byte_characters()
    ids_of_bytes = [
        tokenizer.token_to_id(characters[byte] if name.startswith("byte-level") else f"<0x{byte:02X}>")
        for byte in range(256)
    ]
    assert None not in ids_of_bytes
    fragments = (
        st.sampled_from([*GRIN, *CHINESE, *ACCENTED, " ", "a", REPLACEMENT])
        .map(str.encode)
        .flatmap(lambda encoded: st.integers(1, len(encoded)).map(lambda num_bytes: encoded[:num_bytes]))
    )
    data = st.lists(st.one_of(fragments, st.binary(max_size=3)), max_size=30).map(b"".join)

    @RELAXED
    @given(data=data)
    @example(data=GRIN.encode()[:3])
    @example(data=b"a" + CHINESE.encode()[:-1])
    @example(data=b"\x80" * 40)
    def check(data):
        ids = [ids_of_bytes[byte] for byte in data]
        pieces = stream(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids)
        if name.startswith("byte-level"):
            assert "".join(pieces) == data.decode(errors="replace")

    check()


@pytest.mark.parametrize("name", ["byte-level", "byte-level-broken", "llama", "bytes-then-metaspace"])
def test_encoded_text_is_streamed_without_broken_characters(name):
    tokenizer = TOKENIZERS[name]
    text = SAMPLE.replace(REPLACEMENT, "")
    if name == "byte-level-broken":
        ids = [tokenizer.token_to_id(byte_characters()[byte]) for byte in text.encode()]
    else:
        ids = tokenizer.encode(text).ids
    pieces = stream(tokenizer, ids)
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert CHINESE in "".join(pieces)
    assert sum(piece != "" for piece in pieces) > 10


def test_character_appears_with_its_last_byte():
    tokenizer = TOKENIZERS["byte-level-broken"]
    ids = [tokenizer.token_to_id(byte_characters()[byte]) for byte in f"a{GRIN}b".encode()]
    assert stream(tokenizer, ids) == ["a", "", "", "", GRIN, "b", ""]


def test_run_of_fallback_bytes_appears_with_the_token_after_it():
    tokenizer = TOKENIZERS["llama"]
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in GRIN.encode()]
    end = tokenizer.token_to_id("b")
    assert stream(tokenizer, [*ids, end]) == ["", "", "", "", f"{GRIN}b", ""]
    assert stream(tokenizer, ids) == ["", "", "", "", GRIN]
    assert stream(tokenizer, [*ids, ids[0], end]) == [*[""] * 5, REPLACEMENT * 5 + "b", ""]


def test_incomplete_character_is_not_waited_for_longer_than_needed():
    tokenizer = TOKENIZERS["byte-level-broken"]
    token_id = tokenizer.token_to_id("".join(byte_characters()[byte] for byte in b"\x80\x99\xe2"))
    pieces = stream(tokenizer, [token_id] * 30)
    assert pieces[1:30] == ["\u2019"] * 29
    assert pieces[30] == REPLACEMENT


def test_special_and_unknown_ids_do_not_divide_a_character():
    tokenizer = TOKENIZERS["byte-level-broken"]
    first, second = (tokenizer.token_to_id(byte_characters()[byte]) for byte in "\u00e9".encode())
    special = tokenizer.token_to_id("<|end|>")
    assert stream(tokenizer, [first, special, 10**6, second]) == ["", "", "", "\u00e9", ""]
    shown = stream(tokenizer, [first, special, second], skip_special_tokens=False)
    assert "".join(shown) == f"{REPLACEMENT}<|end|>{REPLACEMENT}"


def test_tokens_without_text_do_not_push_a_character_out_of_the_window():
    tokenizer = TOKENIZERS["byte-level-broken"]
    first, second, third, last = (tokenizer.token_to_id(byte_characters()[byte]) for byte in GRIN.encode())
    empty = tokenizer.token_to_id("")
    for num_before in range(20):
        for num_after in range(20):
            ids = [first, *[empty] * num_before, second, *[empty] * num_after, third, last, empty]
            assert "".join(stream(tokenizer, ids)) == GRIN


def test_flush_begins_another_text():
    tokenizer = TOKENIZERS["llama"]
    detokenizer = Detokenizer(tokenizer)
    ids = [tokenizer.token_to_id(f"{UNDERLINE}a"), tokenizer.token_to_id("<0xE9>")]
    for _ in range(2):
        assert [detokenizer.push(token_id) for token_id in ids] == ["a", ""]
        assert detokenizer.flush() == REPLACEMENT
    assert detokenizer.flush() == ""


def test_negative_id_is_refused():
    with pytest.raises(OverflowError):
        Detokenizer(TOKENIZERS["llama"]).push(-1)


class CountingTokenizer:
    """Counts the ids that are decoded."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.num_decoded = 0

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def decode(self, ids, skip_special_tokens):
        self.num_decoded += len(ids)
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@for_each_tokenizer
@pytest.mark.parametrize("pattern", ["all", "one", "bytes", "special"])
def test_cost_of_a_token_does_not_grow_with_the_text(name, pattern):
    tokenizer = TOKENIZERS[name]
    ids = {
        "all": list(range(tokenizer.get_vocab_size())) * 10,
        "one": [258] * 3000,
        "bytes": [*range(200, 240), 258] * 75,
        "special": [tokenizer.token_to_id("<s>"), 258] * 1500,
    }[pattern]
    counting = CountingTokenizer(tokenizer)
    pieces = stream(counting, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert counting.num_decoded < 40 * len(ids)


def naive_stop(text, stops, num_exempt=0):
    """What the matcher must do, seen from the end: the first occurrence that ends after `num_exempt` characters."""
    found = [
        index
        for stop in stops
        for index in range(len(text))
        if text.startswith(stop, index) and index + len(stop) > num_exempt
    ]
    return (text[: min(found)], True) if found else (text, False)


def match_pieces(pieces, stops, num_exempt=0):
    """Push until a hit, as an engine does, then flush: text and whether a stop was hit.

    In the first `num_exempt` pieces stops do not count.
    """
    matcher = StopMatcher(stops)
    text = ""
    for index, piece in enumerate(pieces):
        emitted, hit = matcher.push(piece, counts=index >= num_exempt)
        text += emitted
        if hit:
            assert matcher.push("more") == ("", True)
            assert matcher.flush() == ("", True)
            return text, True
    emitted, hit = matcher.flush()
    return text + emitted, hit


SMALL_TEXT = st.text(alphabet="aab\u00e9", max_size=12)


@settings(RELAXED, max_examples=600)
@given(
    pieces=st.lists(st.text(alphabet="aab\u00e9", max_size=5), max_size=12),
    stops=st.lists(st.text(alphabet="aab\u00e9", min_size=1, max_size=5), max_size=3).map(tuple),
)
@example(pieces=["a", "b", "c"], stops=("abc", "b"))
@example(pieces=["a", "b", "d"], stops=("abc", "b"))
@example(pieces=["a", "b"], stops=("abc", "b"))
def test_stop_matcher_equals_naive_search(pieces, stops):
    assert match_pieces(pieces, stops) == naive_stop("".join(pieces), stops)


@settings(RELAXED, max_examples=600)
@given(
    pieces=st.lists(st.text(alphabet="aab", max_size=4), max_size=10),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
    num_exempt=st.integers(min_value=0, max_value=10),
)
@example(pieces=["ab", "a", "b"], stops=("ab",), num_exempt=1)
@example(pieces=["b", "b", "b"], stops=("bb",), num_exempt=2)
@example(pieces=["ab", "a"], stops=("ab", "aba"), num_exempt=1)
def test_stop_matcher_passes_on_what_does_not_count_yet(pieces, stops, num_exempt):
    characters = len("".join(pieces[:num_exempt]))
    assert match_pieces(pieces, stops, num_exempt) == naive_stop("".join(pieces), stops, characters)


@settings(RELAXED, max_examples=300)
@given(text=SMALL_TEXT, stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3).map(tuple))
def test_stop_matcher_holds_back_no_more_than_needed(text, stops):
    matcher = StopMatcher(stops)
    emitted = ""
    for character in text:
        piece, hit = matcher.push(character)
        emitted += piece
        if hit:
            return
    held = text[len(emitted) :]
    assert emitted + held == text
    assert held == "" or any(len(stop) > len(held) and stop.startswith(held) for stop in stops)


def test_stop_matcher_holds_back_a_beginning_and_releases_it():
    matcher = StopMatcher(("<end>", "\n\n"))
    steps = [("one <", "one "), ("e", ""), ("x\n", "<ex"), ("two", "\ntwo"), ("\n", ""), ("\n", "")]
    assert [matcher.push(text) for text, _ in steps] == [(out, i == 5) for i, (_, out) in enumerate(steps)]


def test_stop_matcher_without_stops_passes_everything():
    matcher = StopMatcher(())
    assert matcher.push("abc") == ("abc", False)
    assert matcher.flush() == ("", False)


def test_stop_matcher_refuses_an_empty_stop():
    with pytest.raises(UsageError, match="a stop string must not be empty"):
        StopMatcher(("a", ""))
