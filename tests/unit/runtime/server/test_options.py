"""Options of `amdnfs serve` that are refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from amdnfs_runtime.errors import UsageError

from amdnfs_compile.cli.serve import serve_command


def refused(tmp_path: Path, *options: str) -> str:
    with pytest.raises(UsageError) as error:
        serve_command.main([str(tmp_path / "absent"), "--port", "0", *options], standalone_mode=False)
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_key_in_the_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AMDNFS_API_KEY", value)
    assert refused(tmp_path).startswith("AMDNFS_API_KEY is set but holds no key; put one in it")


def test_an_empty_key_among_the_options_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "--api-key", "") == (
        "--api-key: a key must be printable ASCII without spaces, at least one character"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", "-1"), "--port must be an integer >= 0 and < 65536, not -1"),
        (("--read-timeout", "nan"), "--read-timeout must be a finite number > 0 and <= 1e+07, not nan"),
        (("--tls-cert", "a"), "give both --tls-cert and --tls-key, or neither"),
        (
            ("--kv-pages", "9", "--memory-fraction", "0.5"),
            "give either --kv-pages or --memory-fraction, not both: each",
        ),
        (("--model-name", ""), "--model-name: a name must be printable, at least one character, not ''"),
        (("--allowed-host", "a:9"), "--allowed-host: a host is like chat.example.org, without a port, not 'a:9'"),
        (("--cors-origin", "max_running"), "or *, not 'max_running'"),
    ],
)
def test_errors_name_options_as_the_command_line_does(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    assert message in refused(tmp_path, *options)
