"""Collects `<pass_name>.mlir` files: every RUN line is one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amdnfs_passes.testing import CheckFailed, RunLine, check_run, read_run_lines


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return MlirFile.from_parent(parent, path=file_path) if file_path.suffix == ".mlir" else None


class MlirFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        try:
            runs = read_run_lines(self.path)
        except CheckFailed as error:
            raise self.CollectError(str(error)) from error
        for run in runs:
            name = ",".join(item.describe() for item in run.passes) + (" --why" if run.why else "")
            yield RunItem.from_parent(self, name=f"{run.line_number}: {name}", run=run)


class RunItem(pytest.Item):
    def __init__(self, *, run: RunLine, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._run = run

    def runtest(self) -> None:
        check_run(self._run)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CheckFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._run.line_number - 1, self.name
