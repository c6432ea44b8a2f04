"""Count what the architecture limits: `python scripts/count.py` prints files, lines, entries and module-level state."""

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
    """What was counted, if that helps to find it."""

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        relation = "at least" if self.at_least else "at most"
        state = "" if self.holds else "   <-- not kept"
        details = "".join(f"\n    {detail}" for detail in ("", *self.details) if detail)
        return f"{self.name:<34}{self.value:>10,g}   {relation} {self.limit:,g}{state}{details}"


def counts(src: Path = SRC) -> list[Count]:
    """All counts of a source tree."""
    files = sorted(src.rglob("*.py"))
    lines = [len(file.read_text().splitlines()) for file in files]
    ignored = {"__init__.py", "py.typed", "__pycache__"}
    entries = [entry.name for entry in (src / "losslab").iterdir() if entry.name not in ignored]
    state = [f"{file.relative_to(src)}: {name}" for file in files for name in mutable_state(file.read_text())]
    return [
        Count("Python files", len(files), 220),
        Count("median lines of a file", median(lines), 100, at_least=True),
        Count("lines", sum(lines), 26_600),
        Count("entries at the root of losslab", len(entries), 12),
        Count("module-level names that change", len(state), 0, details=tuple(state)),
    ]


def mutable_state(source: str) -> list[str]:
    """Module-level names that a function of the module rebinds, or whose object it changes in place.

    Finds `global`, assignments to items and attributes, and calls of mutating methods. Caches of functions
    (`functools.cache`) and changes made by other modules are not found. A `ContextVar` is not counted: it is set for a
    context, not for the module.
    """
    module = ast.parse(source)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    changed = {name for function in functions for name in _changed(function)}
    return sorted(changed & _module_names(module))


def _module_names(module: ast.Module) -> set[str]:
    """Names that are assigned at module level, without imports, functions, classes and context variables."""
    names: set[str] = set()
    for statement in module.body:
        if "ContextVar(" in ast.unparse(getattr(statement, "value", None) or ast.Pass()):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names |= {node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)}
    return names


def _changed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Names of other scopes that a function rebinds or changes."""
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
    """The name at the start of `name.attribute[item]...`; "" if it starts with something else."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def main() -> None:
    """Print all counts; the exit code is 1 if a limit is not kept."""
    found = counts()
    print("\n".join(map(str, found)))
    sys.exit(not all(count.holds for count in found))


if __name__ == "__main__":
    main()
