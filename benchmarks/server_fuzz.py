"""Throws malformed requests at `amdnfs serve`: bytes, heads, JSON, fields, messages, schemas, grammars, templates.

    amdnfs-compile examples/demo_model --target cpu -o demo.amdnfs
    python benchmarks/server_fuzz.py demo.amdnfs --cases 12000

Every request must be answered with less than 500 within some seconds, or its connection closed if it is no HTTP. At the
end no page may be in use, and the server must still answer. Needs `amdnfs[fuzz]`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

LIMIT_S = 20.0
TEMPLATE = """{% for m in messages %}{% if m.content == 'raise' %}{{ raise_exception('no') }}{% endif %}\
{% if m.content == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}\
{% if m.content == 'grow' %}{{ m.content * 999999999 }}{% endif %}{{ m.role }}: {{ m.content }}
{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"""
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "17 + 25 =", "max_tokens": 4},
    CHAT: {"messages": [{"role": "user", "content": "17 + 25 ="}], "max_tokens": 4},
    RESPONSES: {"input": "17 + 25 =", "max_output_tokens": 4},
    "/tokenize": {"prompt": "17"},
    "/detokenize": {"tokens": [17]},
    "/v1/embeddings": {"input": "17"},
}


class Fuzz:
    """A server under fire, and what it answered."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=LIMIT_S)
        self.statuses: dict[str, Counter[int]] = {}
        self.failures: list[str] = []
        self.slowest_s = 0.0

    def post(self, kind: str, path: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Sends a body and notes the status."""
        began_s = time.monotonic()
        try:
            response = self.client.post(
                path, content=data, headers={"Content-Type": "application/json", **(headers or {})}
            )
        except httpx.HTTPError as error:
            self.failures.append(f"{kind}: {path} {data[:300]!r}: {error!r}")
            return
        self.note(
            kind, response.status_code, time.monotonic() - began_s, f"{path} {data[:300]!r}: {response.text[:200]}"
        )

    def note(self, kind: str, status: int, seconds: float, what: str) -> None:
        """Notes an answer."""
        self.statuses.setdefault(kind, Counter())[status] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if status >= 500 or seconds > LIMIT_S:
            self.failures.append(f"{kind}: {status} after {seconds:.1f} s: {what}")

    def rss_mib(self) -> float:
        """Memory of the server."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) / 1024

    def pages_used(self) -> float:
        """Pages that the server says are in use."""
        found = re.search(r"^amdnfs_kv_pages_used (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        assert found is not None
        return float(found[1])


@contextmanager
def serving(bundle: Path) -> Iterator[Fuzz]:
    """Runs the server with a small pool, so that no answer is long."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "chat.jinja"
        template.write_text(TEMPLATE, encoding="utf-8")
        code = "from amdnfs_compile.cli.main import main; main()"
        options = ["--port", "0", "--target", "cpu", "--kv-pages", "9", "--template-timeout", "0.5"]
        command = [sys.executable, "-c", code, "serve", str(bundle), *options, "--chat-template", str(template)]
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        try:
            url = process.stdout.readline().decode().split()[-1]
            yield Fuzz(url, process)
            process.send_signal(signal.SIGTERM)
            print(f"exit code {process.wait(60)}")
            bugs = [
                line for line in (Path(folder) / "log").read_text(encoding="utf-8").splitlines() if "internal" in line
            ]
            print(f"internal errors in the log: {len(bugs)}", *bugs[:3], sep="\n")
        finally:
            process.kill()
            process.stdout.close()


TEXTS = st.one_of(
    st.text(max_size=12),
    st.text('abc{}[]().*+?|\\"', max_size=12),
    st.sampled_from(["", "\x00", "</s>", "<s>", "raise", "loop", "grow", "a" * 3000, "{{ 7*7 }}", "../../x", "\u202e"]),
)
SURROGATES = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, -(2**64), 10**400, 1e308, float("nan"), True])
)
VALUES = st.recursive(
    st.none() | NUMBERS | TEXTS | TEXTS | SURROGATES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def fields_of(document: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the fields of each path, from the OpenAPI document."""
    names = {}
    for path in GOOD:
        reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        names[path] = sorted(document["components"]["schemas"][reference.split("/")[-1]]["properties"])
    return names


def encoded(body: object) -> bytes:
    """JSON, with all that JSON cannot hold."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def bodies(names: dict[str, list[str]]) -> st.SearchStrategy[tuple[str, bytes]]:
    """Good bodies with one to three fields of any value, or bytes."""

    @st.composite
    def draw_body(draw: st.DrawFn) -> tuple[str, bytes]:
        path = draw(st.sampled_from(sorted(GOOD)))
        kind = draw(st.integers(0, 9))
        if kind == 0:
            return path, draw(st.binary(max_size=60))
        if kind == 1:
            return path, b'{"prompt":' * draw(st.integers(1, 5000)) + draw(st.binary(max_size=9))
        known = st.sampled_from(names[path])
        changes = draw(st.dictionaries(TEXTS if kind == 3 else known, VALUES, min_size=1, max_size=2))
        data = encoded({**GOOD[path], **changes})
        if kind == 2:  # a byte is changed
            index = draw(st.integers(0, len(data) - 1))
            data = data[:index] + draw(st.binary(min_size=1, max_size=2)) + data[index + 1 :]
        return path, data

    return draw_body()


def chats() -> st.SearchStrategy[tuple[str, bytes]]:
    """Chats that are nearly right."""
    call = st.fixed_dictionaries(
        {
            "id": TEXTS,
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": TEXTS, "arguments": TEXTS | st.just('{"a": "\\ud800"}')}),
        }
    )
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "x"])},
        optional={
            "content": TEXTS | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=2),
            "tool_calls": st.lists(call, max_size=2),
            "name": TEXTS,
            "tool_call_id": TEXTS,
        },
    )
    tool = st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": TEXTS | st.just("f"), "parameters": VALUES}),
        }
    )
    optional = {
        "tools": st.lists(tool, max_size=2),
        "tool_choice": st.sampled_from(["auto", "none", "required"]) | VALUES,
        "chat_template_kwargs": st.dictionaries(TEXTS, VALUES, max_size=2),
        "stream": st.booleans(),
    }
    required = {"messages": st.lists(message, max_size=4), "max_tokens": st.just(3)}
    return st.fixed_dictionaries(required, optional=optional).map(lambda body: (CHAT, encoded(body)))


def structures() -> st.SearchStrategy[tuple[str, bytes]]:
    """Schemas, expressions and grammars, most of them impossible."""
    kinds = st.sampled_from(["string", "integer", "object", "array", "null", "x"])
    schema = st.recursive(
        st.fixed_dictionaries({}, optional={"type": kinds, "enum": VALUES, "pattern": TEXTS, "minimum": NUMBERS}),
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(TEXTS, inner, max_size=3),
                "items": inner,
                "anyOf": st.lists(inner, max_size=3),
                "required": st.lists(TEXTS, max_size=2),
                "$ref": st.sampled_from(["#", "#/x", "http://example.org/schema"]),
                "maxItems": NUMBERS,
            },
        ),
        max_leaves=6,
    )
    expression = TEXTS | st.sampled_from(
        ["(", "(a+)+$", "a{1,99999}", "[", "(?=a)", "\\1", "((a{0,99}){0,99}){0,99}", "."]
    )
    grammar = TEXTS | st.sampled_from(["start: start", "start: x", 'start: "a"', "start: /(/", "start: " + "(" * 999])
    field = st.one_of(
        schema.map(lambda value: {"guided_json": value}),
        schema.map(lambda value: {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}),
        expression.map(lambda value: {"guided_regex": value}),
        grammar.map(lambda value: {"guided_grammar": value}),
        st.lists(TEXTS, max_size=3).map(lambda value: {"guided_choice": value}),
        VALUES.map(lambda value: {"structured_outputs": value}),
    )
    return field.map(lambda value: (COMPLETIONS, encoded({"prompt": "a", "max_tokens": 4, **value})))


def throw(fuzz: Fuzz, kind: str, cases: st.SearchStrategy[tuple[str, bytes]], number: int, start: int) -> None:
    """Sends cases until there are enough; hypothesis stops early when it has seen all that a strategy gives."""
    round_number = 0
    while fuzz.statuses.get(kind, Counter()).total() < number:
        left = number - fuzz.statuses.get(kind, Counter()).total()

        @seed(start + round_number)
        @settings(
            max_examples=left,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases)
        def one(case: tuple[str, bytes]) -> None:
            fuzz.post(kind, *case)

        one()
        round_number += 1


def throw_heads(fuzz: Fuzz, number: int, start: int) -> None:
    """Sends things that are hardly HTTP over a socket of their own; some close at once."""
    rng = random.Random(start)
    address = (fuzz.client.base_url.host, fuzz.client.base_url.port or 0)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: 34\r\n\r\n"
    good = head + b'{"prompt": "17 +", "max_tokens":4}'
    parts = [
        b"\r\n",
        b"\x00",
        b"\xff",
        b" ",
        b":",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"%00",
        b"../",
    ]
    for _ in range(number):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            index = rng.randrange(len(data))
            data[index : index + rng.randint(0, 8)] = rng.choice(parts) if rng.random() < 0.7 else rng.randbytes(5)
        began_s = time.monotonic()
        with socket.create_connection(address, timeout=LIMIT_S) as connection:
            connection.sendall(data)
            if rng.random() < 0.8:
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(4096)
            else:
                answer = b""
        found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
        fuzz.note("heads", int(found[1]) if found else 0, time.monotonic() - began_s, repr(bytes(data)))


def throw_schema(fuzz: Fuzz, number: int, start: int) -> None:
    """Sends what schemathesis makes of the OpenAPI document; answers must be as documented."""
    schema = schemathesis.openapi.from_url(f"{fuzz.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    for index, operation in enumerate(operations):
        modes = list(schemathesis.GenerationMode)
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)

            @seed(start + index)
            @settings(
                max_examples=max(1, number // len(operations) // len(modes)),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def one(case: Any) -> None:
                if isinstance(case.body, dict):
                    bounded(case.body)
                began_s = time.monotonic()
                response = case.call(timeout=LIMIT_S)
                what = f"{case.method} {case.path} {case.body!r:.300}"
                fuzz.note("openapi", response.status_code, time.monotonic() - began_s, what)
                documented = case.operation.definition.raw["responses"]
                if str(response.status_code) not in documented and response.status_code not in (404, 405):
                    fuzz.failures.append(f"openapi: {response.status_code} is not documented: {what}")

            try:
                one()
            except Exception as error:  # operations without parameters have nothing to make wrong
                if "Unsatisfiable" not in type(error).__name__:
                    raise


def bounded(body: dict[str, Any]) -> None:
    """Keeps answers short, so that time goes into cases; what is wrong stays wrong."""
    if isinstance(body.get("n"), int) and body["n"] > 4:
        body["n"] = 4
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(body.get(name), int) and body[name] > 4:
            body[name] = 4


def main() -> None:
    """Throws everything, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cases", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    share = arguments.cases // 12
    with serving(arguments.bundle) as fuzz:
        names = fields_of(fuzz.client.get("/openapi.json").json())
        first_mib = fuzz.rss_mib()
        began_s = time.monotonic()
        parts: list[tuple[str, Callable[[], None]]] = [
            ("bodies", lambda: throw(fuzz, "bodies", bodies(names), 4 * share, arguments.seed)),
            ("chats", lambda: throw(fuzz, "chats", chats(), 2 * share, arguments.seed)),
            ("structures", lambda: throw(fuzz, "structures", structures(), 2 * share, arguments.seed)),
            ("heads", lambda: throw_heads(fuzz, 2 * share, arguments.seed)),
            ("openapi", lambda: throw_schema(fuzz, 2 * share, arguments.seed)),
        ]
        for kind, run in parts:
            run()
            print(f"{kind:12}{dict(sorted(fuzz.statuses[kind].items()))}  RSS {fuzz.rss_mib():.0f} MiB", flush=True)
        total = sum(counter.total() for counter in fuzz.statuses.values())
        print(f"{total} cases in {time.monotonic() - began_s:.0f} s, slowest {fuzz.slowest_s:.2f} s")
        print(f"pages in use {fuzz.pages_used():.0f}, RSS {first_mib:.0f} -> {fuzz.rss_mib():.0f} MiB")
        print(f"ready: {fuzz.client.get('/health/ready').json()}")
        fuzz.client.close()
    print(f"failures: {len(fuzz.failures)}", *fuzz.failures[:20], sep="\n")
    sys.exit(1 if fuzz.failures else 0)


if __name__ == "__main__":
    main()
