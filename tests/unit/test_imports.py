"""Who may import whom: targets <- passes <- compile; the runtime imports targets, but neither torch nor a compiler."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

OURS = ("amdnfs_targets", "amdnfs_hipemu", "amdnfs_passes", "amdnfs_runtime", "amdnfs_compile")
ALLOWED = {
    "amdnfs_targets": {"amdnfs_targets"},
    "amdnfs_hipemu": {"amdnfs_hipemu"},
    "amdnfs_passes": {"amdnfs_passes", "amdnfs_targets"},
    "amdnfs_runtime": {"amdnfs_runtime", "amdnfs_targets"},
    "amdnfs_compile": set(OURS),
}
HEAVY = {"torch", "transformers", "safetensors", "huggingface_hub", "onnx", "iree.compiler"}
"""What a serving host does not have."""

MAY_RUN_BUNDLES = {"bisect.py", "bisect_text.py", "cli", "replay.py", "verify.py"}
"""Parts of amdnfs_compile that may import more of the runtime than the bundle's format and the errors."""


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def files_of(package: str) -> list[Path]:
    files = sorted(folder_of(package).rglob("*.py"))
    assert len(files) > 2
    return files


def imports_of(path: Path) -> Iterator[str]:
    """Every module named in an import statement, wherever it stands; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert [alias.name for alias in node.names] != ["*"], f"{path}: star import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_one_of(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("package", OURS)
def test_the_direction_of_imports(package: str) -> None:
    forbidden = set(OURS) - ALLOWED[package] | {"passes", "targets", "runtime", "tests", "examples"}
    wrong = [(path.name, name) for path in files_of(package) for name in imports_of(path) if is_one_of(name, forbidden)]
    assert wrong == []


@pytest.mark.parametrize("package", ["amdnfs_targets", "amdnfs_hipemu", "amdnfs_runtime"])
def test_a_serving_host_needs_nothing_heavy(package: str) -> None:
    wrong = [(path.name, name) for path in files_of(package) for name in imports_of(path) if is_one_of(name, HEAVY)]
    assert wrong == []


def test_targets_and_the_format_of_bundles_need_the_standard_library_only() -> None:
    paths = [*files_of("amdnfs_targets"), *(folder_of("amdnfs_runtime") / name for name in ("bundle.py", "errors.py"))]
    allowed = {"amdnfs_targets", "amdnfs_runtime.errors"} | sys.stdlib_module_names
    wrong = [(path.name, name) for path in paths for name in imports_of(path) if not is_one_of(name, allowed)]
    assert wrong == []


def test_passes_reach_the_compiler_through_one_file() -> None:
    root = folder_of("amdnfs_passes")
    found = {
        str(path.relative_to(root))
        for path in files_of("amdnfs_passes")
        if any(is_one_of(name, {"iree"}) for name in imports_of(path))
    }
    assert found == {"ir.py"}


def test_compiling_needs_no_device() -> None:
    root = folder_of("amdnfs_compile")
    allowed = {"amdnfs_runtime.bundle", "amdnfs_runtime.errors", "amdnfs_runtime.report.code_objects"}
    wrong = [
        (str(path.relative_to(root)), name)
        for path in files_of("amdnfs_compile")
        if path.relative_to(root).parts[0] not in MAY_RUN_BUNDLES
        for name in imports_of(path)
        if is_one_of(name, {"amdnfs_runtime"}) and not is_one_of(name, allowed)
    ]
    assert wrong == []


def test_the_reader_of_imports_sees_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import a.b, c\nfrom d import e\ndef f():\n    from g.h import i as j\n")
    assert sorted(imports_of(path)) == ["a.b", "c", "d", "d.e", "g.h", "g.h.i"]
    path.write_text("from . import a\n")
    with pytest.raises(AssertionError, match="relative import"):
        list(imports_of(path))
