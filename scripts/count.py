"""Check the size limits of the code: `python scripts/count.py` counts files, lines, entries and mutable state."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SRC = Path(__file__).resolve().parents[1] / "src"
_MUTATING = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove", "set",
    "setdefault", "update",
}  # fmt: skip


@dataclass(frozen=True)
class Count:
    """A number and its limit."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    details: tuple[str, ...] = ()
    """The counted items, if they help to find the cause."""

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        relation = "at least" if self.at_least else "at most"
        state = "" if self.holds else "   <-- not kept"
        details = "".join(f"\n    {detail}" for detail in ("", *self.details) if detail)
        return f"{self.name:<34}{self.value:>10,g}   {relation} {self.limit:,g}{state}{details}"


def counts(src: Path = SRC) -> list[Count]:
    """Count everything in a source tree."""
    files = sorted(src.rglob("*.py"))
    lines = [len(file.read_text().splitlines()) for file in files]
    ignored = {"__init__.py", "py.typed", "__pycache__"}
    entries = [entry.name for entry in (src / "losslab").iterdir() if entry.name not in ignored]
    state = [f"{file.relative_to(src)}: {name}" for file in files for name in mutable_state(file.read_text())]
    return [
        Count("Python files", len(files), 230),
        Count("median lines of a file", median(lines), 100, at_least=True),
        Count("lines", sum(lines), 38_000),
        Count("entries at the root of losslab", len(entries), 13),
        Count("module-level mutable names", len(state), 0, details=tuple(state)),
    ]


def mutable_state(source: str) -> list[str]:
    """Find the module-level names that a function of the module rebinds, or whose value it changes in place.

    The search covers `global` statements, assignments to items and attributes, and calls of mutating methods. It does
    not find function caches (`functools.cache`) or changes made by other modules. A `ContextVar` is not counted,
    because its value belongs to a context, not to the module.
    """
    module = ast.parse(source)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    changed = {name for function in functions for name in _changed(function)}
    return sorted(changed & _module_names(module))


def _module_names(module: ast.Module) -> set[str]:
    """Names assigned at module level, except imports, functions, classes and context variables."""
    names: set[str] = set()
    for statement in module.body:
        if "ContextVar(" in ast.unparse(getattr(statement, "value", None) or ast.Pass()):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names |= {node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)}
    return names


def _changed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Names from outer scopes that a function rebinds or changes in place."""
    nodes = [*ast.walk(function)]
    rebound = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    local = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    local |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield from {_root(node)} - local
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATING:
            yield from {_root(node.func.value)} - local
    yield from rebound


def _root(node: ast.expr) -> str:
    """Return the name at the start of `name.attribute[item]...`; "" if the expression does not start with a name."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def main() -> None:
    """Print all counts; the exit code is 1 if a value exceeds its limit."""
    found = counts()
    print("\n".join(map(str, found)))
    sys.exit(not all(count.holds for count in found))


if __name__ == "__main__":
    main()
