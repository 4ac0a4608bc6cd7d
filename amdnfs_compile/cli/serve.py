"""`amdnfs serve`: an HTTP server with OpenAI's interface."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.config import ServerConfig

_DEFAULTS = ServerConfig()
_ENGINE = EngineConfig()
_KEY_VARIABLE = "AMDNFS_API_KEY"
_EXTRA = ("starlette", "uvicorn", "prometheus_client", "pydantic")


def _checked_keys(_context: click.Context, _option: click.Parameter, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses a variable that is set and names no key: whoever set it wants one, and gets an open server."""
    if not keys and _KEY_VARIABLE in os.environ:
        raise UsageError(
            f"{_KEY_VARIABLE} is set but holds no key; put one in it (openssl rand -hex 24 makes one), or unset it to "
            "serve without a key"
        )
    return keys


@click.command(name="serve", epilog="Example: amdnfs serve my-llama.amdnfs --port 8000")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--host", default=_DEFAULTS.host, show_default=True, help="Address; 0.0.0.0 for all.")
@click.option("--port", type=int, default=_DEFAULTS.port, show_default=True, help="Port; 0 for a free one.")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar=_KEY_VARIABLE,
    callback=_checked_keys,
    help="Key that clients must send; repeatable, and AMDNFS_API_KEY holds some with spaces between [default: none].",
)
@click.option(
    "--model-name", "model_names", multiple=True, help="Name for clients; repeatable [default: the bundle's]."
)
@click.option("--chat-template", type=click.Path(path_type=Path), help="File to use instead of the bundle's template.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM.")
@click.option("--cors-origin", "cors_origins", multiple=True, help="Web origin to let in; repeatable [default: none].")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    help="Host name that requests may use, e.g. a proxy's; repeatable [default: any, or loopback names at loopback].",
)
@click.option("--max-body-bytes", type=int, default=_DEFAULTS.max_body_bytes, show_default=True)
@click.option("--max-header-bytes", type=int, default=_DEFAULTS.max_header_bytes, show_default=True)
@click.option("--max-connections", type=int, default=_DEFAULTS.max_connections, show_default=True)
@click.option("--max-concurrent-requests", type=int, default=_DEFAULTS.max_concurrent_requests, show_default=True)
@click.option("--requests-per-minute", type=int, help="For each key, or address if there are no keys [default: any].")
@click.option("--read-timeout", "read_timeout_s", type=float, default=_DEFAULTS.read_timeout_s, show_default=True)
@click.option(
    "--request-timeout", "request_timeout_s", type=float, default=_DEFAULTS.request_timeout_s, show_default=True
)
@click.option(
    "--template-timeout", "template_timeout_s", type=float, default=_DEFAULTS.template_timeout_s, show_default=True
)
@click.option("--drain-seconds", type=float, default=_DEFAULTS.drain_seconds, show_default=True, help="After SIGTERM.")
@click.option("--otlp-endpoint", help="Collector for OpenTelemetry's traces, over HTTP [default: none].")
@click.option("--log-prompts", is_flag=True, help="Write prompts and answers to the log.")
@click.option("--target", help="Use this target of the bundle [default: the best for this machine].")
@click.option("--kv-pages", type=int, help="Pages of the KV pool [default: by the free memory].")
@click.option("--memory-fraction", type=float, help="Share of the free memory for the KV pool.")
@click.option("--max-running", type=int, help="Most texts that are written at once [default: the largest batch].")
@click.option("--max-step-tokens", type=int, help="Tokens of a step [default: two pieces of prompts and a batch].")
@click.option("--no-prefix-cache", is_flag=True, help="Compute each prompt from its beginning.")
@click.option("--draft", type=click.Path(path_type=Path), help="Bundle of a smaller model that guesses next tokens.")
@click.option("--call-timeout", "call_timeout_s", type=float, default=_ENGINE.call_timeout_s, show_default=True)
@click.option("--no-check", is_flag=True, help="Skip the digests of the bundle's files.")
def serve_command(
    bundle: Path,
    target: str | None,
    kv_pages: int | None,
    memory_fraction: float | None,
    max_running: int | None,
    max_step_tokens: int | None,
    no_prefix_cache: bool,
    draft: Path | None,
    call_timeout_s: float,
    no_check: bool,
    **choices: Any,
) -> None:
    """Serve BUNDLE over HTTP, with OpenAI's interface."""
    with _option_names():
        config = ServerConfig(**choices)
        engine_config = EngineConfig(
            kv_pages=kv_pages,
            memory_fraction=memory_fraction,
            max_running=max_running,
            max_step_tokens=max_step_tokens,
            prefix_cache=not no_prefix_cache,
            call_timeout_s=call_timeout_s,
        )
    _serve(bundle, target, draft, config, engine_config, check=not no_check)


@contextmanager
def _option_names() -> Iterator[None]:
    """Tells errors of fields by the names of their options."""
    try:
        yield
    except UsageError as error:
        names = {item.name: item.opts[0] for item in serve_command.params if isinstance(item, click.Option)}
        # Behind the value that was given nothing is a name.
        told, given, value = str(error).partition(", not ")
        told = re.sub(r"^[a-z]+\b|\b[a-z]+(?:_[a-z]+)+\b", lambda found: names.get(found[0], found[0]), told)
        raise UsageError(told + given + value) from error


def _serve(
    bundle: Path,
    target: str | None,
    draft: Path | None,
    config: ServerConfig,
    engine_config: EngineConfig,
    *,
    check: bool,
) -> None:
    try:
        from amdnfs_runtime.server import listen, logs, service
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in _EXTRA:
            raise
        raise UsageError(f"this command needs {name}; install it with: pip install 'amdnfs[serve]'") from error
    from amdnfs_runtime.async_engine import AsyncEngine
    from amdnfs_runtime.chat_template import read_template_source
    from amdnfs_runtime.llm import load_engine

    listen.check_tls(config)
    with listen.open_socket(config) as sock:
        engine = load_engine(bundle, target=target, check=check, draft=draft, config=engine_config)
        made = service.Service(
            AsyncEngine(engine),
            config,
            template=read_template_source(bundle, config.chat_template),
            defaults=service.read_defaults(bundle),
        )
        logs.configure_logs()
        if not config.api_keys and not listen.is_loopback(sock):
            click.echo("warning: everybody who reaches this address can use it; --api-key asks for a key", err=True)
        line = f"serving {made.model_names[0]} ({engine.target_name}) at {listen.url_of(config, sock)}"
        listen.run_server(made, sock, lambda _: click.echo(line))
