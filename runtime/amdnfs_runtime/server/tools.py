"""Tools of a chat: checks them, and says what a call looks like for a model.

    hermes    <tool_call>{"name": "f", "arguments": {...}}</tool_call>     Hermes, Qwen; a line end beside each marker
    llama3    {"name": "f", "parameters": {...}}                           Llama 3.1 and later
    mistral   [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]         Mistral

A call that must be made is constrained to this form, and its arguments to the schema of the function. A call that may
be made is found in the text by `tool_calls`. Knows neither HTTP nor the engine.

Source: the chat templates of NousResearch/Hermes-2-Pro-Llama-3-8B, Qwen/Qwen2.5-7B-Instruct,
meta-llama/Llama-3.1-8B-Instruct and mistralai/Mistral-7B-Instruct-v0.3; OpenAI's API reference, "Function calling".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.tool_calls import HERMES, LLAMA3, MISTRAL, CallForm, CallReader
from amdnfs_runtime.structure import Structure

MOST_TOOLS = 128
"""Most functions of a request; OpenAI's limit."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def form_of(template_text: str) -> CallForm:
    """The form of calls in which a chat template tells earlier ones."""
    for form in (MISTRAL, HERMES, LLAMA3):
        if form.opener in template_text:
            return form
    return LLAMA3 if '"parameters"' in template_text else HERMES


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """The tools of a request."""

    functions: tuple[Mapping[str, Any], ...]
    """Each with a name, parameters and perhaps a description."""
    form: CallForm
    """How calls are written."""
    structure: Structure | None
    """What the answer must look like, if it must be a call."""
    is_parallel: bool
    """Whether there may be several calls."""
    instructions: str | None
    """What the system message must say, as the chat template shows no tools; None if it does."""

    @property
    def shown(self) -> list[dict[str, Any]]:
        """What the chat template gets."""
        return [{"type": "function", "function": dict(function)} for function in self.functions]

    def reader(self) -> CallReader:
        """A reader for one answer."""
        names = frozenset(function["name"] for function in self.functions)
        return CallReader(self.form, names, self.is_parallel, is_forced=self.structure is not None)


def read_tools(
    tools: Sequence[Any], choice: str | Mapping[str, Any] | None, is_parallel: bool | None, template_text: str
) -> Tools | None:
    """What a request asks for.

    Args:
        tools: `{"type": "function", "function": {"name": ...}}`, or the function's fields beside the type.
        choice: `auto` (also None), `none`, `required`, or the one function to call, in either form.
        is_parallel: Whether there may be several calls; None for yes.
        template_text: The chat template.

    Returns:
        None if no tool is to be used.

    Raises:
        UsageError: Something makes no sense; the message begins with `tools` or `tool_choice`.
    """
    functions = [_function(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    if len(functions) > MOST_TOOLS:
        raise UsageError(f"tools: there are {len(functions)}, at most {MOST_TOOLS} are allowed")
    names = [function["name"] for function in functions]
    if len(set(names)) < len(names):
        raise UsageError("tools: two functions have the same name")
    chosen = _chosen(choice, names)
    if chosen is not None and not functions:
        raise UsageError(f"tool_choice: there are no tools to call; leave it out, or give tools ({choice!r:.80})")
    if not functions or choice == "none":
        return None
    form = form_of(template_text)
    may_repeat = is_parallel is not False and not isinstance(choice, Mapping)
    wanted = [function for function in functions if chosen is None or function["name"] in chosen]
    return Tools(
        functions=tuple(functions),
        form=form,
        structure=None if chosen is None else call_structure(wanted, form, may_repeat),
        is_parallel=may_repeat,
        instructions=None if "tools" in template_text else _instructions(functions),
    )


def call_structure(functions: Sequence[Mapping[str, Any]], form: CallForm, is_parallel: bool) -> Structure:
    """What an answer looks like that calls one of the functions, or several with `is_parallel`."""
    before, after = (f"{form.opener}\n", f"\n{form.closer}") if form.closer else ("", "")
    items: list[list[str | Mapping[str, Any]]] = []
    for function in functions:
        head = f'{before}{{"name": {json.dumps(function["name"])}, "{form.arguments}": '
        items.append([head, dict(function["parameters"]), "}" + after])
    begin, end = ("[", "]") if form.is_list else ("", "")
    join = form.separators[0] + " " if form.separators else "\n"
    return Structure.items(items, begin=begin, join=join if is_parallel else None, end=end)


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, Mapping) else tool
        raise UsageError(f"{where}: only tools of the type 'function' are supported, not {kind!r:.80}")
    function = tool.get("function", {name: value for name, value in tool.items() if name != "type"})
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{where}: a function needs a name of 1 to 64 letters, digits, '_', '-' and '.', not {name!r:.80}"
        )
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _NO_PARAMETERS
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise UsageError(f"{where}: the parameters of {name} must be a JSON schema of an object")
    description = function.get("description")
    if not isinstance(description, (str, type(None))):
        raise UsageError(f"{where}: the description of {name} must be a text")
    found = {"name": name, "description": description or "", "parameters": {"type": "object", **parameters}}
    return found if description else {key: value for key, value in found.items() if key != "description"}


def _chosen(choice: str | Mapping[str, Any] | None, names: Sequence[str]) -> list[str] | None:
    """Names of the functions of which one must be called; None if none must."""
    if choice is None or choice in ("auto", "none"):
        return None
    if choice == "required":
        return list(names)
    name = None
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        inner = choice.get("function", choice)
        name = inner.get("name") if isinstance(inner, Mapping) else None
    if name is None:
        allowed = "'none', 'auto', 'required' or {'type': 'function', 'function': {'name': ...}}"
        raise UsageError(f"tool_choice: it must be {allowed}, not {choice!r:.80}")
    if name not in names:
        raise UsageError(f"tool_choice: there is no tool {name!r:.80}; known: {', '.join(sorted(names))}")
    return [name]


def _instructions(functions: Sequence[Mapping[str, Any]]) -> str:
    """What tells a model of its tools when its chat template does not."""
    lines = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    return (
        f"You can call these functions. Each line is one of them, with a JSON schema of its arguments:\n{lines}\n"
        'To call one, write: <tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call>'
    )
