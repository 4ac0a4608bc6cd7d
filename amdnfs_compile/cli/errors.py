"""Turns our errors into exit codes, and anything else into a request to report a bug."""

from __future__ import annotations

import platform
import signal
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import click
from amdnfs_runtime.errors import AmdnfsError

from amdnfs_compile.cli.streams import careful_streams

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
_PACKAGES = ("amdnfs", "iree-base-compiler", "iree-base-runtime", "torch", "transformers")


def run(command: click.Command) -> None:
    """Runs `command` as a program: never returns."""
    with careful_streams():
        code = _guarded(lambda: _called(command))
    sys.exit(code)


def _called(command: click.Command) -> object:
    result = command.main(standalone_mode=False)
    if sys.stdout is not None:
        sys.stdout.flush()  # here, where a failure is told
    return result


def _guarded(call: Callable[[], object]) -> int:
    # What CI and containers send to stop a job, and what a closed terminal sends: clean up as on Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    try:
        result = call()
    except AmdnfsError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; no bundle was changed", err=True)
        return EXIT_INTERRUPTED
    except SystemExit as error:
        code = _code_of(error)
        if code:  # click makes such an exit of a broken pipe, and says nothing
            click.echo(f"error: ended early with code {code}; was a pipe to another program closed?", err=True)
        return code
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("torch", "transformers", "iree", "safetensors", "huggingface_hub"):
            click.echo(
                f"error: this command needs {error.name}; install it with: pip install 'amdnfs[compile]'", err=True
            )
            return 2
        return _report_bug()
    except Exception:
        return _report_bug()
    return result if isinstance(result, int) else 0


def _code_of(error: SystemExit) -> int:
    """What the interpreter would end with."""
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _report_bug() -> int:
    traceback.print_exc()
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    click.echo(
        f"this is a bug in amdnfs: please report it with the text above and the command you ran\n"
        f"  python {platform.python_version()}, {versions}",
        err=True,
    )
    return EXIT_BUG


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
