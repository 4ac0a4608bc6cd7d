"""The page at `/`: what it may load, what it says, and that it works in a browser, also on a phone."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amdnfs_runtime.server.page import routes

from tests.unit.runtime.server.harness import Running, SlowProgram, greedy_text, running, until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HAS_BROWSER = CHROMIUM is not None and DRIVER is not None
needs_browser = pytest.mark.skipif(
    not HAS_BROWSER, reason="there is no chromium with chromedriver (Debian: chromium chromium-driver)"
)


def test_the_page_asks_nobody_else(server: Running) -> None:
    response = server.client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert set(re.findall(r"https?://[^\"']+", response.text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|localStorage|document\.cookie)\b", response.text
    )
    assert len(response.content) < 40_000
    assert response.text.isascii()


def test_the_numbers_of_the_page(server: Running) -> None:
    before = server.client.get("/metrics.json").json()
    server.complete("once", max_tokens=9, ignore_eos=True)
    after = server.client.get("/metrics.json").json()
    assert after["num_generated_tokens"] - before["num_generated_tokens"] == 9
    assert after["first_token_s"][-1][1] - before["first_token_s"][-1][1] == 1
    assert after["next_token_s"][-1][1] - before["next_token_s"][-1][1] == 8
    assert after["next_token_s"][-1][0] is None
    assert (after["status"], after["num_running"], after["num_used_pages"]) == ("ok", 0, 0)
    assert after["num_pages"] == 299
    facts = dict(after["facts"]["shown"])
    assert (facts["Target"], facts["Context"]) == ("cpu", "400 tokens")
    assert after["facts"]["has_chat_template"] is True


def test_the_page_is_open_and_its_numbers_are_not() -> None:
    with running(api_keys=("secret",)) as server:
        assert server.client.get("/", headers={"Authorization": ""}).status_code == 200
        assert server.client.get("/metrics.json", headers={"Authorization": ""}).status_code == 401
        assert server.client.get("/metrics.json").status_code == 200


@contextmanager
def browsing(folder: Path, *, width: int = 1280, height: int = 800) -> Iterator[Any]:
    """A browser with a window of that many CSS pixels."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={folder}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
        yield browser
    finally:
        browser.quit()


def write(browser: Any, text: str) -> None:
    browser.find_element("id", "text").send_keys(text)
    browser.find_element("id", "send").click()


def texts(browser: Any, kind: str) -> list[str]:
    """What is shown, without the line about speed."""
    script = "return [...document.querySelectorAll(arguments[0])].map((turn) => turn.firstChild.textContent)"
    return list(browser.execute_script(script, f".turn.{kind}"))


def is_idle(browser: Any) -> bool:
    return bool(browser.find_element("id", "send").is_displayed())


@needs_browser
def test_a_chat_in_a_browser(server: Running, tmp_path: Path) -> None:
    with browsing(tmp_path) as browser:
        browser.get(str(server.client.base_url))
        until(lambda: browser.find_element("id", "status").text == "ready")
        assert browser.title == "m"
        assert "400 tokens" in browser.find_element("id", "facts").text
        browser.execute_script("document.querySelector('details').open = true")
        browser.find_element("id", "temperature").send_keys("0")
        browser.find_element("id", "tokens").clear()
        browser.find_element("id", "tokens").send_keys("40")
        write(browser, "<img src=x onerror=alert(1)>")
        until(lambda: is_idle(browser))
        write(browser, "go on")
        until(lambda: is_idle(browser))
        asked = "<img src=x onerror=alert(1)>"
        assert texts(browser, "user") == [asked, "go on"]
        assert browser.find_elements("tag name", "img") == []
        prompt = "".join(char if char in "abcdefghijklmnopqrstuvwxyz .,0123456789" else "." for char in asked)
        first = greedy_text(f"u.{prompt} a.", 40)
        assert texts(browser, "assistant")[0] == first.strip()
        until(lambda: browser.find_element("id", "gauge-first").text != "-")
        # The gauges are of some moment, perhaps before the end of the answer; the next ones are after it.
        until(lambda: browser.find_element("id", "gauge-pages").text == "0 of 299")
        assert browser.find_element("id", "gauge-running").text == "0 running"
        # Whoever uses a screen reader hears a name for every field.
        script = (
            "return [...document.querySelectorAll('input, textarea, meter')].filter((field) => !field.labels?.length"
        )
        script += " && !field.getAttribute('aria-label')).map((field) => field.id)"
        assert browser.execute_script(script) == []
        browser.find_element("id", "clear").click()
        assert texts(browser, "user") == []
        assert browser.get_log("browser") == []


@needs_browser
def test_gauges_show_the_last_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s[0])
    monkeypatch.setattr(routes, "time", clock)
    with running(SlowProgram(delay_s=0.002)) as server, browsing(tmp_path) as browser:

        def shown() -> list[str]:
            return [browser.find_element("id", f"gauge-{name}").text for name in ("first", "next", "hits")]

        prompt = "once upon a time there was"
        server.complete(prompt, max_tokens=9, ignore_eos=True)
        browser.get(str(server.client.base_url))
        until(lambda: browser.find_element("id", "status").text == "ready")
        assert shown() == ["-", "-", "-"], "what was before the page is not of the last minute"
        server.complete(prompt, max_tokens=9, ignore_eos=True)
        until(lambda: "-" not in shown())
        assert shown()[0].endswith(" ms")
        share = server.engine.stats().totals.num_cached_tokens / len(prompt)  # the first prompt had none
        assert share > 0
        assert shown()[2] == f"{100 * share:.0f} %", "of the second prompt, not of both"
        late_s[0] = 61.0
        until(lambda: shown() == ["-", "-", "-"])


@needs_browser
def test_stop_ends_the_request_and_errors_are_shown(tmp_path: Path) -> None:
    program = SlowProgram(delay_s=0.05)
    with running(program, defaults={"ignore_eos": True}) as server, browsing(tmp_path) as browser:
        browser.get(str(server.client.base_url))
        write(browser, "tell me")
        until(lambda: server.engine.num_running == 1)
        stop = browser.find_element("id", "stop")
        until(stop.is_displayed)
        stop.click()
        server.until_idle()
        assert server.engine.stats().totals.num_cancelled == 1
        assert is_idle(browser)
        write(browser, "x" * 500)
        until(lambda: bool(texts(browser, "error")))
        assert "context is 400 tokens" in texts(browser, "error")[0]


@needs_browser
def test_on_a_phone_with_a_key_and_without_a_chat_template(tmp_path: Path) -> None:
    with (
        running(template=None, api_keys=("secret",)) as server,
        browsing(tmp_path, width=360, height=640) as browser,
    ):
        browser.get(str(server.client.base_url))
        secret = browser.find_element("id", "secret")
        until(secret.is_displayed)
        secret.send_keys("secret\n")
        until(lambda: browser.find_element("id", "status").text == "ready")
        assert not secret.is_displayed()
        assert "no chat template" in browser.find_element("id", "hint").text
        write(browser, "word " * 30)
        until(lambda: is_idle(browser) and bool(texts(browser, "assistant")))
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        script = "return [...document.querySelectorAll('button, textarea')].filter((e) => e.offsetParent).map("
        script += "(e) => [e.getBoundingClientRect().right, e.getBoundingClientRect().height])"
        for right, height in browser.execute_script(script):
            assert right <= 360
            assert height >= 40
