"""List the modules of an installed Python package, without importing any of them.

Guaranteed: only the package's own public modules are listed (regular packages, no name with a leading underscore, no
tests, examples or benchmarks, nothing vendored), after the file that carries its README. Not guaranteed: modules
written in other languages; their docstrings exist only at run time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ray_jobs.corpus.listed import Listed
from ray_jobs.errors import NotFoundError, UsageError

_NOT_DOCUMENTATION = frozenset(
    {"tests", "test", "testing", "conftest.py", "setup.py", "vendored", "examples", "benchmarks"}
)


def list_modules(package: str) -> Iterator[Listed]:
    """List README and modules of `package` (`ray`, or a part of it: `ray.data`); `relative` is a path below it.

    Raises NotFoundError if it is not installed, UsageError if it has no source to read.
    """
    top, *inner = package.split(".")
    root = _locate(package, top).joinpath(*inner)
    if inner and not (root / "__init__.py").is_file():
        module = root.with_suffix(".py")
        if not module.is_file():
            raise NotFoundError(f"source 'pydoc:{package}': {top!r} is installed, but has no module {package!r}")
        root = module
    if not inner:
        yield from _readme(top)
    if root.is_file():
        yield _listed(root, "")
    else:
        yield from _walk(root, "")


def _locate(package: str, top: str) -> Path:
    try:
        # Only top-level names are looked up: finding a submodule's spec would import its parents.
        spec = find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NotFoundError(
            f"source 'pydoc:{package}': no package {top!r} is installed here; install it, or check the import name "
            "(it may differ from the name it is installed by)"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(f"source 'pydoc:{package}': {top!r} has no Python source to read docstrings from")
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


def _readme(top: str) -> Iterator[Listed]:
    """Yield the METADATA file of the distribution that installs the package: its body is the README."""
    for name in sorted(set(metadata.packages_distributions().get(top, ()))):
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            if file.name == "METADATA":
                yield _listed(Path(str(distribution.locate_file(file))), f"README-{name}" if name != top else "README")
                return


def _walk(folder: Path, relative: str) -> Iterator[Listed]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in _NOT_DOCUMENTATION or (entry.name.startswith("_") and entry.name != "__init__.py"):
            continue
        path = Path(entry.path)
        if entry.is_dir() and (path / "__init__.py").is_file():
            yield from _walk(path, f"{relative}{entry.name}/")
        elif entry.name.endswith(".py") and not entry.name.startswith("test_") and entry.is_file():
            yield _listed(path, f"{relative}{entry.name}")


def _listed(path: Path, relative: str) -> Listed:
    status = path.stat()
    return Listed(str(path), relative, status.st_size, str(status.st_mtime_ns))
