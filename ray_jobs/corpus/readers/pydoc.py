"""Read the documentation in Python source: one Markdown document a module, and the README of its distribution.

A module `a.b` becomes `# a.b` and its docstring, then `## name` for each public function and class, `### Class.method`
for methods, each with its signature and docstring, in the order of the source; then what the module takes from private
modules of its package, which have no document of their own.

Guaranteed: nothing is imported or run; the source is only parsed. Headings inside docstrings become bold lines, so that
the headings of the document are names. Not guaranteed: what exists only at run time (generated docstrings, re-exports),
and names without a docstring, which are left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.pydoc_exports import exported, parse
from ray_jobs.corpus.structure import headings

LONGEST_DEFAULT = 30
"""Characters; a longer default value in a signature becomes an ellipsis."""

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_ROLE = re.compile(r"(?::\w+)+:`[~!]?([^`<]+?)(?:\s*<[^`>]*>)?`")


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the document of the module or README, its text empty if nothing in it is documented."""
    path = Path(part.file.uri)
    if path.suffix != ".py":
        yield _readme(path)
        return
    module = module_name(path)
    try:
        tree = parse(stream.read())
    except (SyntaxError, ValueError) as error:
        yield Reject("file", "bad-python", f"the module cannot be parsed: {error}")
        return
    members = [*tree.body, *exported(tree, path, module)]
    parts = [*_docstring(tree), *_members(members, prefix="", level=2)]
    text = "\n\n".join((f"# {module}", *parts)) if parts else ""
    yield RawDocument(text=text, title=module, metadata={"package": module.partition(".")[0], "module": module})


def module_name(path: Path) -> str:
    """Return the dotted name of a module's file, by the packages around it."""
    names = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


def _readme(path: Path) -> RawDocument:
    found = PathDistribution(path.parent).metadata
    name, version = found["Name"] or path.parent.name, found["Version"] or ""
    summary, body = found["Summary"] or "", found.get_payload()  # type: ignore[attr-defined]
    parts = (text for text in (summary, str(body or "").strip()) if text and text != "UNKNOWN")
    metadata = {"package": name, "version": version}
    return RawDocument(text="\n\n".join(parts), title=f"{name} {version}".strip(), metadata=metadata)


def _members(body: Iterable[ast.stmt], prefix: str, level: int) -> Iterator[str]:
    for node in body:
        match node:
            case ast.If() | ast.Try():
                branches = [*node.body, *node.orelse]
                yield from _members(branches, prefix, level)
            case ast.ClassDef() if not node.name.startswith("_"):
                yield from _class(node, prefix, level)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not node.name.startswith("_"):
                yield from _function(node, prefix, level)


def _class(node: ast.ClassDef, prefix: str, level: int) -> Iterator[str]:
    name = f"{prefix}{node.name}"
    documented = _docstring(node)
    initialiser = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if initialiser is not None:
        documented += _docstring(initialiser)
    members = list(_members(node.body, f"{name}.", min(level + 1, 6)))
    if documented or members:
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        shown = _signature(name, initialiser) if initialiser is not None else f"{name}({bases})"
        yield f"{'#' * level} {name}"
        yield f"`class {shown}`"
        yield from documented
        yield from members


def _function(node: _Function, prefix: str, level: int) -> Iterator[str]:
    documented = _docstring(node)
    if not documented:
        return
    name = f"{prefix}{node.name}"
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    yield f"{'#' * level} {name}"
    if decorators & {"property", "cached_property"}:
        yield f"`property {name}`"
    else:
        yield f"`{_signature(name, node)}`"
    yield from documented


def _signature(name: str, node: _Function) -> str:
    """Return `name(parameters)`: no annotations, no self, long defaults shortened."""
    found = node.args
    positional = [*found.posonlyargs, *found.args]
    defaults = [None] * (len(positional) - len(found.defaults)) + [*found.defaults]
    shown = [_parameter(a, d) for a, d in zip(positional, defaults, strict=True)]
    if found.posonlyargs:
        shown.insert(len(found.posonlyargs), "/")
    if positional and positional[0].arg in ("self", "cls"):
        del shown[0]
    if found.vararg is not None:
        shown.append(f"*{found.vararg.arg}")
    elif found.kwonlyargs:
        shown.append("*")
    shown += [_parameter(a, d) for a, d in zip(found.kwonlyargs, found.kw_defaults, strict=True)]
    if found.kwarg is not None:
        shown.append(f"**{found.kwarg.arg}")
    return f"{name}({', '.join(shown)})"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    if default is None:
        return argument.arg
    value = ast.unparse(default)
    return f"{argument.arg}={value if len(value) <= LONGEST_DEFAULT else '...'}"


def _docstring(node: ast.Module | ast.ClassDef | _Function) -> list[str]:
    """Return the docstring as Markdown, in a list that is empty if there is none."""
    text = (ast.get_docstring(node) or "").strip()
    if not text:
        return []
    if text.count("```") % 2:
        # A fence left open would swallow the rest of the module.
        text += "\n```"
    for heading in reversed(list(headings(text))):
        text = f"{text[: heading.start]}**{heading.text}**\n{text[heading.end :]}"
    return [_ROLE.sub(r"`\1`", text)]
