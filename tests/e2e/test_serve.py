"""`amdnfs serve` as its users meet it: the official client of OpenAI, the command line, signals, and many at once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amdnfs_runtime
import httpx
import openai
import pytest
from amdnfs_runtime import SamplingParams

RunCli = Callable[..., Any]

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model"
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
SUM = "17 + 25 ="
STORY = "Once upon a time"
USER: Any = [{"role": "user", "content": SUM}]
MODEL = "demo_model"


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str


@contextmanager
def serve(bundle: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    """Runs `amdnfs serve`; it must end with code 0 when it is told to."""
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}; from amdnfs_compile.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(bundle), "--port", "0", "--target", "cpu", *options]
    environment = {**os.environ, **(env or {})}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            found = re.fullmatch(rf"serving {MODEL} \(cpu\) at (https?://127\.0\.0\.1:\d+)\n", line)
            assert found is not None, (line, process.stderr.read() if process.poll() is not None else "")
            yield Served(process=process, url=found[1])
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model for this CPU."""
    from amdnfs_compile import CompileOptions, compile_model

    output = tmp_path_factory.mktemp("bundles") / "demo.amdnfs"
    return compile_model(DEMO_MODEL, ["cpu"], output, CompileOptions(prefill_chunks=(16, 64), decode_batches=(1, 8)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("templates") / "chat.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def served(demo: Path, template: Path) -> Iterator[Served]:
    with serve(demo, "--chat-template", str(template), "--api-key", "key") as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="key", max_retries=0) as made:
        yield made


def pages_in_use(served: Served) -> float:
    text = httpx.get(f"{served.url}/metrics", headers={"Authorization": "Bearer key"}).text
    found = re.search(r"^amdnfs_kv_pages_used (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


# The official client


def test_client_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_client_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=USER, temperature=0, max_completion_tokens=4)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", " 42.", "length")
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 4 + answer.usage.prompt_tokens)


def test_client_chat_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL,
        messages=USER,
        temperature=0,
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == " 42."
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 4


def test_client_chat_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=USER, temperature=0, max_tokens=20) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content == " 42."
    assert {"chunk", "content.delta", "content.done"} <= kinds


@pytest.mark.parametrize("stream", [False, True])
def test_client_logprobs(client: openai.OpenAI, stream: bool) -> None:
    options: Any = {"model": MODEL, "messages": USER, "temperature": 0, "max_tokens": 4, "logprobs": True}
    answer = client.chat.completions.create(**options, top_logprobs=3, stream=stream)
    parts = list(answer) if stream else [answer]
    entries = [
        entry for part in parts for entry in (part.choices[0].logprobs.content if part.choices[0].logprobs else [])
    ]
    assert "".join(entry.token for entry in entries) == " 42."
    for entry in entries:
        assert entry.bytes == list(entry.token.encode())
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].token == entry.token
        assert -0.1 < entry.logprob <= 0


def test_client_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=[SUM, "8 + 9 ="], temperature=0, logprobs=1, extra_body={"min_p": 0.5, "top_k": 5}
    )
    assert [choice.text for choice in answer.choices] == [" 42.", " 17."]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert answer.choices[1].logprobs is not None
    assert answer.choices[1].logprobs.tokens == [" ", "1", "7", "."]


def test_client_completion_stream(client: openai.OpenAI) -> None:
    with client.completions.create(model=MODEL, prompt=SUM, temperature=0, stream=True, echo=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == f"{SUM} 42."


def test_client_completion_of_token_ids(client: openai.OpenAI, served: Served) -> None:
    tokens = [
        httpx.post(f"{served.url}/tokenize", json={"prompt": text}, headers={"Authorization": "Bearer key"}).json()
        for text in (SUM, "8 + 9 =")
    ]
    first, second = (answer["tokens"] for answer in tokens)
    options: Any = {"model": MODEL, "temperature": 0}
    assert client.completions.create(prompt=first, **options).choices[0].text == " 42."
    answer = client.completions.create(prompt=[first, second], n=2, **options)
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, " 42."),
        (1, " 42."),
        (2, " 17."),
        (3, " 17."),
    ]
    usage_too: Any = {"include_usage": True}
    texts = dict.fromkeys(range(4), "")
    with client.completions.create(
        prompt=[first, second], n=2, logprobs=1, stream=True, stream_options=usage_too, **options
    ) as stream:
        *chunks, last = list(stream)
    for chunk in chunks:
        assert chunk.usage is None
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: " 42.", 1: " 42.", 2: " 17.", 3: " 17."}
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == len(first) + len(second)


def test_client_samples_and_seeds(client: openai.OpenAI) -> None:
    def texts(**options: Any) -> list[str]:
        answer = client.completions.create(
            **{"model": MODEL, "prompt": STORY, "max_tokens": 24, "n": 3, "temperature": 1.2, **options}
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.text for choice in answer.choices]

    first = texts(seed=7)
    assert first == texts(seed=7) != texts(seed=8)
    assert len(set(first)) == 3
    assert len(set(texts(temperature=0))) == 1


def test_client_stop(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=STORY, temperature=0, max_tokens=60, stop=["."])
    assert answer.choices[0].finish_reason == "stop"
    assert "." not in answer.choices[0].text
    assert answer.choices[0].text


def test_client_json_schema(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=USER,
        temperature=0,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}},
    )
    value = json.loads(answer.choices[0].message.content or "")
    assert set(value) == {"sum"}
    assert 0 <= value["sum"] <= 99


def test_client_tools(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance")
    function = {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"way": {"enum": ["up", "down"]}},
            "required": ["way"],
            "additionalProperties": False,
        },
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=USER,
        temperature=0,
        max_tokens=300,
        tools=[{"type": "function", "function": function}],  # type: ignore[list-item]
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "add"
    assert json.loads(call.function.arguments)["way"] in ("up", "down")


def test_client_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input=SUM, temperature=0, max_output_tokens=4, store=False)
    assert (answer.output_text, answer.status) == (" 42.", "incomplete")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 4
    talk: Any = [{"role": "user", "content": "17 + "}, *answer.output, {"role": "user", "content": "25 ="}]
    again = client.responses.create(model=MODEL, input=talk, instructions="Add.", temperature=0, max_output_tokens=4)
    assert again.output[0].type == "message"


def test_client_responses_stream(client: openai.OpenAI) -> None:
    with client.responses.create(
        model=MODEL,
        input=SUM,
        temperature=0,
        max_output_tokens=4,
        stream=True,
        include=["message.output_text.logprobs"],
        top_logprobs=1,
    ) as stream:
        events = list(stream)
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == " 42."


def test_client_responses_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=SUM, temperature=0, max_output_tokens=20) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == " 42."


def test_client_closing_cancels(client: openai.OpenAI, served: Served) -> None:
    stream = client.completions.create(
        model=MODEL, prompt=STORY, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert pages_in_use(served) > 0
    stream.close()
    for _ in range(500):
        if pages_in_use(served) == 0:
            break
    assert pages_in_use(served) == 0


def test_client_errors(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'zorg'") as missing:
        client.completions.create(model="zorg", prompt="a")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="temperature: Input should be greater") as refused:
        client.completions.create(model=MODEL, prompt="a", temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="the context is 512 tokens"):
        client.completions.create(model=MODEL, prompt=STORY * 200, stream=True)
    with pytest.raises(openai.BadRequestError, match="no entry point for embeddings"):
        client.embeddings.create(model=MODEL, input="a")
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_output_under_load_equals_output_alone(demo: Path, served: Served) -> None:
    llm = amdnfs_runtime.load(demo, target="cpu")
    prompts = [SUM, "8 + 9 =", STORY, "Ruby was a clever fox.", "99 - 18 =", "Max was a clever cat. One warm day"]
    cases: list[dict[str, Any]] = [
        {"prompt": prompt, "max_tokens": 40, **sampling}
        for prompt in prompts
        for sampling in ({"temperature": 0}, {"temperature": 0.9, "seed": 11, "top_p": 0.95})
    ]
    params = [SamplingParams(**{name: value for name, value in case.items() if name != "prompt"}) for case in cases]
    alone = [llm.generate(case["prompt"], param)[0].text for case, param in zip(cases, params, strict=True)]

    async def one(client: openai.AsyncOpenAI, number: int) -> tuple[int, str]:
        case = cases[number % len(cases)]
        if number % 2:
            answer = await client.completions.create(model=MODEL, **case)
            return number, answer.choices[0].text
        text = ""
        async for chunk in await client.completions.create(model=MODEL, stream=True, **case):
            text += chunk.choices[0].text
        return number, text

    async def main() -> list[tuple[int, str]]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="key", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(4 * len(cases) + 1)))

    for number, text in asyncio.run(main()):
        assert text == alone[number % len(cases)]
    assert pages_in_use(served) == 0


# The command


def test_ctrl_c_ends_in_good_order(demo: Path) -> None:
    with serve(demo, env={"AMDNFS_API_KEY": "one two"}) as server:
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        assert httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer two"}).status_code == 200
        body = {"messages": [{"role": "user", "content": "a"}]}
        refused = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers={"Authorization": "Bearer two"})
        assert refused.json()["error"]["code"] == "no_chat_template"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert server.process.stderr is not None
        messages = [json.loads(line)["message"] for line in server.process.stderr]
    assert messages[0] == "serving"
    assert messages[-2:] == ["stopping; a second signal ends at once", "stopped"]


def test_sigterm_lets_a_stream_end(demo: Path) -> None:
    with serve(demo) as server:
        body = {"prompt": STORY, "max_tokens": 400, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "x"], "'x' is not a valid integer"),
        (["--port", "-1"], "error: --port must be an integer >= 0 and < 65536, not -1"),
        (["--max-body-bytes", "1"], "error: --max-body-bytes must be an integer >= 1024, not 1"),
        (["--drain-seconds", "nan"], "error: --drain-seconds must be a finite number >= 0"),
        (["--tls-cert", "absent"], "error: give both --tls-cert and --tls-key, or neither"),
        (["--tls-cert", "absent", "--tls-key", "absent"], "error: --tls-cert absent cannot be read"),
        (["--host", "no.such.host.invalid"], "error: --host no.such.host.invalid: no such address"),
        (["--kv-pages", "1"], "error: --kv-pages must be an integer >= 2, not 1"),
        (["--cors-origin", "zorg"], "error: --cors-origin: an origin is like https://chat.example.org"),
    ],
)
def test_wrong_options(run_cli: RunCli, demo: Path, options: list[str], message: str) -> None:
    done = run_cli("amdnfs", "serve", demo, "--port", "0", *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_no_bundle_no_template_no_port(run_cli: RunCli, demo: Path, tmp_path: Path) -> None:
    done = run_cli("amdnfs", "serve", tmp_path / "absent", "--port", "0")
    assert (done.code, done.out) == (6, "")
    assert "no bundle at" in done.err
    done = run_cli("amdnfs", "serve", demo, "--port", "0", "--chat-template", tmp_path / "absent")
    assert done.code == 2
    assert "cannot be read: " in done.err
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% if %}", encoding="utf-8")
    done = run_cli("amdnfs", "serve", demo, "--port", "0", "--chat-template", broken)
    assert (done.code, done.out) == (6, "")
    assert f"{broken}: template 'default', line 1: " in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_cli("amdnfs", "serve", demo, "--port", port)
    assert (done.code, done.out) == (2, "")
    assert f"error: cannot listen at 127.0.0.1 port {port}: Address already in use" in done.err


def test_without_the_extra(demo: Path) -> None:
    path = [entry for entry in sys.path if entry]
    code = (
        f"import sys; sys.path[:0] = {path!r}; sys.modules['starlette'] = None; "
        "from amdnfs_compile.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "serve", str(demo), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: this command needs starlette; install it with: pip install 'amdnfs[serve]'\n"


def test_generate_with_the_chat_template(run_cli: RunCli, demo: Path, tmp_path: Path) -> None:
    options = ("--target", "cpu", "--chat", "--max-tokens", "8")
    done = run_cli("amdnfs", "generate", demo, "--prompt", SUM, *options)
    assert (done.code, done.out) == (2, "")
    assert "has no chat template: its model only continues texts; leave out --chat" in done.err
    bundle = Path(shutil.copytree(demo, tmp_path / "chat.amdnfs"))
    (bundle / "tokenizer" / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}", "utf-8")
    done = run_cli("amdnfs", "generate", bundle, "--prompt", SUM, *options)
    assert (done.code, done.out) == (0, " 42.\n")
    done = run_cli("amdnfs", "generate", bundle, "--prompt", SUM, "--prompt", "8 + 9 =", "--json", *options)
    assert [result["text"] for result in json.loads(done.out)["results"]] == [" 42.", " 17."]
