"""Chat templates: from the messages of a chat to the text that the model was trained on.

A template is code that comes with a model. It runs in jinja's sandbox, which keeps it from files and processes, but not
from running for ever: `server.templates` renders in a process of its own with limits.

Source: transformers, "Chat templates" of its documentation, for the variables, filters and options that templates use.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from amdnfs_runtime.errors import ArtifactError, UsageError

MOST_CHARS = 16 * 2**20
"""Longest text that a template may make; far above any context."""

_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_TOKENS = "special_tokens_map.json"
_DEFAULT = "default"
_WITH_TOOLS = "tool_use"


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateSource:
    """The chat templates of a model, as text."""

    templates: Mapping[str, str]
    """Templates by name; most models have one, `default`. `tool_use` is taken when tools are given."""

    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Variables such as `bos_token`."""

    origin: str = "chat template"
    """Where it came from, for messages."""


class ChatTemplate:
    """Compiled chat templates of one model.

    >>> text = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    >>> ChatTemplate(TemplateSource(templates={"default": text})).render([{"role": "user", "content": "Hi"}])
    '<user>Hi'
    """

    def __init__(self, source: TemplateSource) -> None:
        """Compiles.

        Raises:
            ArtifactError: If a template is no jinja; with its line.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._tokens = dict(source.special_tokens)
        self._templates = {
            name: _compiled(environment.from_string, text, f"{source.origin}: template {name!r}")
            for name, text in source.templates.items()
        }

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
        most_chars: int = MOST_CHARS,
    ) -> str:
        """The text of a chat, begin token and all: encode it without special tokens.

        Args:
            messages: The chat, each with `role` and `content`.
            tools: Functions that the model may call, in OpenAI's form.
            add_generation_prompt: End with the beginning of an answer.
            variables: More variables for the template.
            most_chars: Longest text.

        Raises:
            UsageError: If the template refuses the messages, fails with them, or makes too long a text.
        """
        template = self._pick(tools)
        given = {
            **self._tokens,
            **(variables or {}),
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        pieces: list[str] = []
        num_chars = 0
        try:
            for piece in template.generate(given):
                num_chars += len(piece)
                if num_chars > most_chars:
                    raise UsageError(f"the chat template makes a text of more than {most_chars} characters")
                pieces.append(piece)
        except UsageError:
            raise
        except TemplateError as error:
            raise UsageError(f"the chat template refuses these messages: {error}") from error
        except Exception as error:  # whatever the model's own code does
            raise UsageError(
                f"the chat template fails with these messages: {type(error).__name__}: {error!s:.200}"
            ) from error
        return "".join(pieces)

    def _pick(self, tools: list[dict[str, Any]] | None) -> Template:
        name = _WITH_TOOLS if tools and _WITH_TOOLS in self._templates else _DEFAULT
        if name not in self._templates:
            raise UsageError(f"the model has no chat template {name!r}; it has {', '.join(sorted(self._templates))}")
        return self._templates[name]


def read_template_source(bundle: Path, file: Path | None = None) -> TemplateSource | None:
    """Finds the chat templates of a bundle.

    Args:
        bundle: Folder of the bundle.
        file: A template to take instead.

    Returns:
        None if there is none.

    Raises:
        ArtifactError: If a file of the tokenizer cannot be read.
        UsageError: If `file` cannot be read.
    """
    folder = bundle / "tokenizer"
    config = _read_object(folder / _CONFIG)
    tokens = _special_tokens({**_read_object(folder / _TOKENS), **config})
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"chat template {file} cannot be read: {error}") from error
        return TemplateSource(templates={_DEFAULT: text}, special_tokens=tokens, origin=str(file))
    if (folder / _FILE).is_file():
        text = _read_text(folder / _FILE)
        return TemplateSource(templates={_DEFAULT: text}, special_tokens=tokens, origin=str(folder / _FILE))
    templates = _templates_of(config.get("chat_template"), folder / _CONFIG)
    if not templates:
        return None
    return TemplateSource(templates=templates, special_tokens=tokens, origin=str(folder / _CONFIG))


class _GenerationTag(Extension):
    """`{% generation %}` marks the answers of an assistant for training; here its body is text like any other."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compiled(compile_text: Callable[[str], Template], text: str, where: str) -> Template:
    try:
        return compile_text(text)
    except TemplateSyntaxError as error:
        raise ArtifactError(
            f"{where}, line {error.lineno}: {error.message}; repair it, or give another with --chat-template FILE"
        ) from error
    except Exception as error:  # jinja computes constants while it compiles: anything can happen
        raise ArtifactError(
            f"{where} cannot be compiled: {type(error).__name__}: {error!s:.200}; give another with "
            "--chat-template FILE"
        ) from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes for HTML, which models were not trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _templates_of(value: object, path: Path) -> dict[str, str]:
    """One template, or a list of named ones."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {_DEFAULT: value}
    try:
        named = {item["name"]: item["template"] for item in value}  # type: ignore[attr-defined]
    except (TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: chat_template is neither a text nor a list of named texts") from error
    if not all(isinstance(item, str) for pair in named.items() for item in pair):
        raise ArtifactError(f"{path}: chat_template has a name or a template that is no text")
    return named


def _special_tokens(values: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and its like; each a text, or an object with its text."""
    tokens = {}
    for name, value in values.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}; repair the bundle's tokenizer folder") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is no JSON object; repair the bundle's tokenizer folder")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
