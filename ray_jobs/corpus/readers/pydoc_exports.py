"""Find what a public module takes from private ones of its package: much of a library's API is written that way.

Guaranteed: only source files of the same package are read, by `from module import name` (or `*`) at the top of the
module. Not guaranteed: names that reach the public module by more than one import, or by any other way.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Definition: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def parse(source: bytes) -> ast.Module:
    """Parse a module. Raises SyntaxError, or ValueError for source with NULs."""
    with warnings.catch_warnings():
        # The compiler warns of other people's invalid escapes.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def exported(tree: ast.Module, path: Path, module: str) -> Iterator[Definition]:
    """Yield the definitions that `module`, at `path`, imports from private modules, under their public names."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    root = path.parent
    for _ in range(package.count(".") + 1):
        root = root.parent
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            if _is_private(origin, module.partition(".")[0]):
                yield from _definitions(_file(root, origin), node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _is_private(origin: str, top: str) -> bool:
    first, *inner = origin.split(".")
    return first == top and any(part.startswith("_") for part in inner)


def _file(root: Path, module: str) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _definitions(file: Path, names: list[ast.alias]) -> Iterator[Definition]:
    try:
        body = parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return  # Written in another language, or generated: there is nothing to read.
    public = {alias.name: alias.asname or alias.name for alias in names}
    for node in body:
        if isinstance(node, Definition) and (node.name in public or "*" in public):
            node.name = public.get(node.name, node.name)
            yield node
