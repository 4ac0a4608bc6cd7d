"""Chat templates: where they are found, what they may use, and what they may not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.chat_template import ChatTemplate, TemplateSource, read_template_source
from amdnfs_runtime.errors import ArtifactError, UsageError

USER = {"role": "user", "content": "Hi"}


def render(text: str, messages: list[dict[str, Any]] | None = None, **options: Any) -> str:
    source = TemplateSource(templates={"default": text}, special_tokens={"bos_token": "<s>"}, origin="t.jinja")
    return ChatTemplate(source).render([USER] if messages is None else messages, **options)


def write(folder: Path, **files: Any) -> Path:
    (folder / "tokenizer").mkdir(exist_ok=True)
    for name, content in files.items():
        path = (
            folder
            / "tokenizer"
            / {"config": "tokenizer_config.json", "map": "special_tokens_map.json"}.get(name, "chat_template.jinja")
        )
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def test_the_text_of_a_chat() -> None:
    template = (
        "{{ bos_token }}{% for message in messages %}\n"
        "    [{{ message['role'] }}] {{ message.content }}\n"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert render(template) == "<s>    [user] Hi\n[assistant]"  # blocks leave no white space behind
    assert render(template, add_generation_prompt=False) == "<s>    [user] Hi\n"


def test_what_templates_use() -> None:
    assert render("{{ tools | tojson }}", tools=[{"name": "<\xe9>"}]) == '[{"name": "<\xe9>"}]'
    assert render("{{ messages | tojson(indent=1) }}") == json.dumps([USER], indent=1)
    assert re.fullmatch(r"20\d\d", render("{{ strftime_now('%Y') }}"))
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c") == "abHic"
    assert render("{{ enable_thinking }}{{ absent }}", variables={"enable_thinking": False}) == "False"
    assert render("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}") == "2"


def test_the_template_for_tools() -> None:
    source = TemplateSource(templates={"default": "plain", "tool_use": "tools"})
    template = ChatTemplate(source)
    assert (template.render([USER]), template.render([USER], tools=[{}])) == ("plain", "tools")
    with pytest.raises(UsageError, match=r"the model has no chat template 'default'; it has rag, tool_use"):
        ChatTemplate(TemplateSource(templates={"rag": "", "tool_use": ""})).render([USER])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
        ("{{ messages.x.y }}", "refuses these messages: "),
        ("{{ messages + 1 }}", "fails with these messages: TypeError: "),
        ("{{ messages[0].update({}) }}", "refuses these messages: "),
        ("{{ messages.append(1) }}", "refuses these messages: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses these messages: "),
        ("{% include '/etc/passwd' %}", "fails with these messages: TypeError: no loader for this environment"),
        ("{% for i in range(10**9) %}{% endfor %}", "fails with these messages: OverflowError: Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails with these messages: RecursionError: "),
    ],
)
def test_what_fails_is_told(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        render(text)
    assert f"the chat template {message}" in str(error.value)


def test_a_text_has_an_end() -> None:
    with pytest.raises(UsageError, match="makes a text of more than 1000 characters"):
        render("{% for i in range(99999) %}aa{% endfor %}", most_chars=1000)
    assert len(render("{% for i in range(500) %}aa{% endfor %}", most_chars=1000)) == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{% if %}", "t.jinja: template 'default', line 2: Expected an expression"),
        ("{{ " + "(" * 5000, "t.jinja: template 'default' cannot be compiled: RecursionError"),
    ],
)
def test_what_is_no_template(text: str, message: str) -> None:
    with pytest.raises(ArtifactError) as error:
        render(text)
    assert message in str(error.value)
    assert str(error.value).endswith("give another with --chat-template FILE")


def test_where_templates_are_found(tmp_path: Path) -> None:
    write(tmp_path)
    assert read_template_source(tmp_path) is None
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "model_max_length": 9}
    write(tmp_path, config=config, map={"pad_token": "<pad>", "bos_token": "old"})
    assert read_template_source(tmp_path) is None
    write(tmp_path, config={**config, "chat_template": "one"})
    source = read_template_source(tmp_path)
    assert source is not None
    assert source.templates == {"default": "one"}
    assert source.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    named = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "three"}]
    write(tmp_path, config={**config, "chat_template": named})
    source = read_template_source(tmp_path)
    assert source is not None
    assert source.templates == {"default": "two", "tool_use": "three"}
    write(tmp_path, template="four")
    source = read_template_source(tmp_path)
    assert source is not None
    assert (source.templates, source.special_tokens["eos_token"]) == ({"default": "four"}, "</s>")
    other = tmp_path / "other.jinja"
    other.write_text("five", encoding="utf-8")
    source = read_template_source(tmp_path, other)
    assert source is not None
    assert (source.templates, source.origin) == ({"default": "five"}, str(other))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "tokenizer_config.json is not JSON: "),
        ("[]", "tokenizer_config.json is no JSON object"),
        ({"chat_template": 4}, "chat_template is neither a text nor a list of named texts"),
        ({"chat_template": [{"name": "a"}]}, "chat_template is neither a text nor a list of named texts"),
        ({"chat_template": [{"name": "a", "template": 4}]}, "chat_template has a name or a template that is no text"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(ArtifactError) as error:
        read_template_source(write(tmp_path, config=config))
    assert message in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"chat template .*absent cannot be read: "):
        read_template_source(write(tmp_path), tmp_path / "absent")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"chat template .*binary cannot be read: "):
        read_template_source(tmp_path, binary)
