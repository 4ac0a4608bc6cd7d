"""What clients do that mean no good, and what the server does about it."""

from __future__ import annotations

import pytest

from tests.unit.runtime.server.harness import CONTEXT, refusal, running

COMPLETIONS = "/v1/completions"


def test_a_text_that_cannot_fit_is_not_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        monkeypatch.setattr(server.service, "_most_token_chars", 3)
        number = 3 * CONTEXT + 1
        for path in (COMPLETIONS, "/tokenize"):
            error = refusal(server.post(path, prompt="a" * number), 400)
            assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
            assert f"prompt: {number} characters are at least {CONTEXT + 1} tokens" in error["message"]
        error = refusal(server.post(COMPLETIONS, prompt="a" * (number - 1)), 400)
        assert f"the prompt has {number - 1} tokens" in error["message"]
