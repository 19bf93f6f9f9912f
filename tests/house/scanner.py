"""Finds constructs that can run code from data. Used on the package by `test_security.py`."""

import ast
from collections.abc import Iterator

BANNED_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
"""Reading any of their formats runs what the file says."""

BANNED_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "makes code of text",
    "__import__": "imports what data names; use robotrl.registry",
    "torch.load": "unpickles; use safetensors",
    "torch.save": "pickles; use safetensors",
    "torch.jit.load": "runs what the file says",
    "torch.hub.load": "runs downloaded code",
    "torch.package.PackageImporter": "runs what the file says",
    "pandas.read_pickle": "unpickles",
    "runpy.run_path": "runs a file",
    "importlib.util.spec_from_file_location": "imports by path",
    "importlib.machinery.SourceFileLoader": "imports by path",
    "hydra.utils.instantiate": "runs what the config names; use robotrl.registry",
    "hydra.utils.call": "runs what the config names; use robotrl.registry",
    "hydra.utils.get_class": "imports what the config names; use robotrl.registry",
    "hydra.utils.get_method": "imports what the config names; use robotrl.registry",
    "hydra.utils.get_object": "imports what the config names; use robotrl.registry",
    "yaml.unsafe_load": "builds any object",
    "yaml.full_load": "builds objects",
    "yaml.unsafe_load_all": "builds any object",
    "yaml.full_load_all": "builds objects",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
}
_SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"}


def findings(tree: ast.Module) -> list[tuple[int, str]]:
    """Line and reason of every construct that can run code from data."""
    names = dict(_imported_names(tree))
    docstrings = set(_docstrings(tree))
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, f"imports {a.name}") for a in node.names if _top(a.name) in BANNED_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if _top(node.module) in BANNED_MODULES:
                found.append((node.lineno, f"imports {node.module}"))
        elif isinstance(node, ast.Call):
            reason = _call(node, names)
            if reason:
                found.append((node.lineno, reason))
        elif isinstance(node, ast.Constant) and id(node) not in docstrings and "_target_" in str(node.value).split("."):
            found.append((node.lineno, "uses hydra's _target_"))
    return sorted(found)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _imported_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Local name -> dotted name, so that `from torch import load as l; l(...)` is seen as `torch.load`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (_top(alias.name), _top(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _docstrings(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    yield id(statement.value)


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def _call(node: ast.Call, names: dict[str, str]) -> str | None:
    name = _dotted(node.func, names)
    keywords = {k.arg: k.value for k in node.keywords}
    if name in BANNED_CALLS:
        return f"{name} {BANNED_CALLS[name]}"
    allow = keywords.get("allow_pickle")
    if allow is not None and not (isinstance(allow, ast.Constant) and allow.value is False):
        return f"{name}(allow_pickle) unpickles"
    if name == "numpy.load" and len(node.args) > 2:
        return "numpy.load(allow_pickle) unpickles"
    if name in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
        if loader is None or _dotted(loader, names).rpartition(".")[2] not in _SAFE_LOADERS:
            return f"{name} without a safe loader builds objects"
    shell = keywords.get("shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        return f"{name}(shell) runs a shell"
    return None
