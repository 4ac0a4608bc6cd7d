"""A whole server, with a socket and a thread of its own, in front of a device that computes next to nothing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from amdnfs_runtime.async_engine import AsyncEngine
from amdnfs_runtime.chat_template import TemplateSource
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.server import listen
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.listen import Stop
from amdnfs_runtime.server.service import Service
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from tests.unit.runtime.fakes import PagedProgram, make_manifest

LETTERS = "abcdefghijklmnopqrstuvwxyz .,0123456789"
VOCAB = ["<eos>", *LETTERS]
CONTEXT = 400
NUM_PAGES = 300
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}.{{ m.content }} {% endfor %}{% if add_generation_prompt %}a.{% endif %}"
)


def make_tokenizer() -> Tokenizer:
    """A letter a token."""
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCAB)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


class SlowProgram(PagedProgram):
    """A device whose calls take a moment, or wait until they are let go."""

    def __init__(self, fail_at: Callable[[int], bool] = lambda number: False, delay_s: float = 0.0) -> None:
        super().__init__(fail_at)
        self.delay_s = delay_s
        self.gate = threading.Event()
        self.gate.set()

    def call(self, *arguments: Any) -> tuple[Any, Any, list[Any]]:
        time.sleep(self.delay_s)
        self.gate.wait()
        return super().call(*arguments)


class Running:
    """A server that runs, and a client for it."""

    def __init__(self, service: Service, client: httpx.Client, stop: Stop, thread: threading.Thread) -> None:
        self.service = service
        self.client = client
        self.stop = stop
        self.thread = thread

    @property
    def engine(self) -> Engine:
        return self.service.engine.engine

    @property
    def address(self) -> tuple[str, int]:
        return self.client.base_url.host, self.client.base_url.port or 0

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def complete(self, prompt: Any = "once upon", **body: Any) -> dict[str, Any]:
        response = self.post("/v1/completions", **{"prompt": prompt, "temperature": 0, **body})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def chat(self, text: str = "hi", **body: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        response = self.post(
            "/v1/chat/completions", **{"messages": messages, "temperature": 0, "max_tokens": 8, **body}
        )
        assert response.status_code == 200, response.text
        return dict(response.json())

    def events(self, path: str, **body: Any) -> list[Any]:
        """The events of a stream; the last of chats and completions is `[DONE]`."""
        with self.client.stream("POST", path, json={**body, "stream": True}) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream"
            return read_events(response.iter_lines())

    def until_idle(self) -> None:
        """Waits until no page is in use."""
        until(lambda: self.service.num_active == 0 and self.engine.stats().num_used_pages == 0)


def read_events(lines: Iterator[str]) -> list[Any]:
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, which must be in OpenAI's form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


@contextmanager
def running(
    program: PagedProgram | None = None,
    *,
    template: str | None = TEMPLATE,
    engine: dict[str, Any] | None = None,
    num_pages: int = NUM_PAGES,
    defaults: dict[str, Any] | None = None,
    **config: Any,
) -> Iterator[Running]:
    """Serves a fake device; afterwards all must be gone, and all pages free."""
    manifest = make_manifest(context=CONTEXT, decode=(1, 8), vocab=len(VOCAB))
    made = Engine(
        program or PagedProgram(), manifest, "cpu", make_tokenizer(), num_pages, EngineConfig(**(engine or {}))
    )
    source = None if template is None else TemplateSource(templates={"default": template})
    settings = ServerConfig(**{"port": 0, "drain_seconds": 0.0, **config})
    service = Service(AsyncEngine(made), settings, template=source, defaults=defaults)
    with serving(service) as server:
        yield server
    made.check_integrity()
    assert made.pool.num_used == 0


@contextmanager
def serving(service: Service) -> Iterator[Running]:
    """Serves in a thread of its own."""
    is_ready = threading.Event()
    stops: list[Stop] = []
    failures: list[BaseException] = []

    def on_ready(stop: Stop) -> None:
        stops.append(stop)
        is_ready.set()

    def main() -> None:
        try:
            asyncio.run(listen.serve(service, sock, on_ready))
        except BaseException as error:
            failures.append(error)
        finally:
            is_ready.set()

    listen.check_tls(service.config)
    with listen.open_socket(service.config) as sock:
        url = listen.url_of(service.config, sock)
        thread = threading.Thread(target=main, name="server")
        thread.start()
        is_ready.wait()
        if failures:
            thread.join()
            raise failures[0]
        key = service.config.api_keys[:1]
        headers = {"Authorization": f"Bearer {key[0]}"} if key else {}
        try:
            with httpx.Client(base_url=url, timeout=30, headers=headers, verify=False) as client:
                yield Running(service, client, stops[0], thread)
        finally:
            stops[0]("the test ends")
            thread.join()
    assert not failures, failures


def greedy_text(prompt: str, num_tokens: int) -> str:
    """What the fake device writes after a prompt, from the texts alone."""
    from tests.unit.runtime.fakes import logits_of

    ids = [VOCAB.index(char) for char in prompt]
    for _ in range(num_tokens):
        ids.append(int(np.argmax(logits_of(ids, len(VOCAB)))))
        if ids[-1] == 0:
            break
    return "".join(VOCAB[token] for token in ids[len(prompt) :] if token)
