"""Templates in processes of their own: time, memory, cancels, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.chat_template import TemplateSource
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.server.templates import TemplateRenderer

TEMPLATE = (
    "{% if messages[0].content == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}"
    "{% if messages[0].content == 'grow' %}{% set ns = namespace(t='a' * 1000) %}{% for i in range(60) %}"
    "{% set ns.t = ns.t + ns.t %}{% endfor %}{% endif %}{{ messages[0].content }}"
)


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def rendering(
    body: Callable[[TemplateRenderer], Awaitable[None]], text: str = TEMPLATE, timeout_s: float = 0.5
) -> None:
    renderer = TemplateRenderer(TemplateSource(templates={"default": text}, origin="t.jinja"), timeout_s)

    async def main() -> None:
        try:
            await renderer.start()
            await asyncio.wait_for(body(renderer), 30)
        finally:
            await renderer.close()

    asyncio.run(main())
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(encoding="ascii").split()
    assert [child for child in children if "template_worker" in _command_of(child)] == []


def _command_of(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return ""


def test_many_at_once() -> None:
    async def body(renderer: TemplateRenderer) -> None:
        texts = [f"text {index} \xe9\U0001f600" for index in range(50)]
        assert await asyncio.gather(*(renderer.render(said(text)) for text in texts)) == texts
        long = "a" * 3_000_000
        assert await renderer.render(said(long)) == long

    rendering(body, timeout_s=5)


@pytest.mark.parametrize("text", ["loop", "grow"])
def test_too_much_ends_its_process_and_the_next_works(text: str) -> None:
    async def body(renderer: TemplateRenderer) -> None:
        for _ in range(2):
            with pytest.raises(
                UsageError, match=r"the chat template (needs more than|fails with these messages: Memory)"
            ):
                await renderer.render(said(text))
        assert await asyncio.gather(*(renderer.render(said("fine")) for _ in range(4))) == ["fine"] * 4

    rendering(body)


def test_a_cancelled_render_gives_its_answer_to_nobody() -> None:
    async def body(renderer: TemplateRenderer) -> None:
        long = "a" * 1_000_000
        for _ in range(3):
            tasks = [asyncio.create_task(renderer.render(said(long))) for _ in range(4)]
            await asyncio.sleep(0.005)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
            assert [await renderer.render(said(text)) for text in "abc"] == ["a", "b", "c"]

    rendering(body, timeout_s=20)


def test_closing_does_not_wait_for_a_loop() -> None:
    async def body(renderer: TemplateRenderer) -> None:
        tasks = [asyncio.create_task(renderer.render(said("loop"))) for _ in range(3)]
        await asyncio.sleep(0.5)
        await renderer.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    rendering(body, timeout_s=60)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% if %}", "t.jinja: template 'default', line 1: "),
        ("{{ " + "(" * 5000, "t.jinja: template 'default' cannot be compiled: RecursionError"),
    ],
)
def test_a_bad_template_is_found_at_the_start(text: str, message: str) -> None:
    async def body(renderer: TemplateRenderer) -> None:
        raise AssertionError("it started")

    with pytest.raises(ArtifactError) as error:
        rendering(body, text, timeout_s=3)
    assert message in str(error.value)
