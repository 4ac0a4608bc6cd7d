"""Texts to token ids: how long a text may be, and that other threads run meanwhile."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from amdnfs_runtime.prompts import encode_text, most_token_chars
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(*merged: str, **model: Any) -> Tokenizer:
    """Tokens for all bytes, and for `merged`, whose beginnings must be tokens too."""
    pieces = [*BYTES, *merged]
    merges = [(piece[:-1], piece[-1]) for piece in merged]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, **model))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


def test_a_token_stands_for_no_more_characters_than_told() -> None:
    tokenizer = byte_level("aa", "aaa", "aaaa")
    assert most_token_chars(tokenizer) == 4
    tokenizer.normalizer = normalizers.NFC()
    most = most_token_chars(tokenizer)
    assert most == 16
    for text in ("a" * 400, "\u03b1\u0313\u0300\u0345" * 100, "\u0dc5" * 100, "\U0001f600" * 50):
        assert len(text) <= most * len(encode_text(tokenizer, text))
    tokenizer.add_special_tokens(["<|end of the text|>"])
    assert most_token_chars(tokenizer) == 19 * 4


def test_tokenizers_that_drop_or_merge_characters_have_no_bound() -> None:
    lossy = [byte_level() for _ in range(4)]
    lossy[0].normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    lossy[1].pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), lossy[1].pre_tokenizer])
    lossy[2].add_tokens([AddedToken("<s>", rstrip=True)])
    lossy[3].normalizer = normalizers.Replace(Regex(" +"), " ")
    lossy.append(Tokenizer(models.BPE(vocab={"a": 0}, merges=[], unk_token="a", fuse_unk=True)))
    lossy.append(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    assert [most_token_chars(tokenizer) for tokenizer in lossy] == [None] * len(lossy)
    split = byte_level()
    split.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("a"), "isolated"), split.pre_tokenizer])
    assert most_token_chars(split) == 1


def test_special_tokens_and_half_characters() -> None:
    tokenizer = byte_level()
    assert encode_text(tokenizer, "") == []
    assert encode_text(tokenizer, "ab") == tokenizer.encode("ab").ids
    with pytest.raises(TypeError):
        encode_text(tokenizer, "\ud800")


def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    tokenizer = byte_level("aa", "aaa", "aaaa")
    work = threading.Thread(target=encode_text, args=(tokenizer, "ab" * 200_000))
    began_s = last_s = time.perf_counter()
    work.start()
    longest_s = 0.0
    while work.is_alive():
        time.sleep(0.001)
        now_s = time.perf_counter()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    took_s = time.perf_counter() - began_s
    assert longest_s < took_s / 2, f"nothing else ran for {longest_s:.2f} s of {took_s:.2f} s"
