"""The source tree as the house tests see it: every module once, by its path in the package."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "robotrl"
LINKED = ("assets", "configs", "envs", "policies", "sim2real", "world_models")
"""The top-level folders that are subpackages of `robotrl` through symlinks."""


def modules() -> list[Path]:
    """Every Python file of the package, relative to the root: `robotrl/types.py`, `robotrl/envs/config.py`."""
    files: list[Path] = []
    for folder in (PACKAGE, *(PACKAGE / name for name in LINKED)):
        files += [path.relative_to(ROOT) for path in folder.rglob("*.py")]
    return sorted(set(files))


@cache
def parse(module: Path) -> ast.Module:
    """The syntax tree of a module named by its path relative to the root."""
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), filename=str(module))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Lines from the `def` or `class` to the last one."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
