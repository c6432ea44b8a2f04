"""Records and restores what a call of a loss or a network may change: buffers, attributes, closures, globals."""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_PLAIN = (int, float, complex, str, bytes, type(None))
_MODULE_FIELDS = frozenset(vars(nn.Module()))
"""Fields of each torch module. They are restored, but are not its state, except for buffers and modules in it."""
_LIBRARIES = sys.stdlib_module_names | {"torch", "losslab", "lightning", "numpy", "omegaconf", "hydra"}
"""Top-level packages into whose functions, classes and objects `State` does not look."""
_MAX_OBJECTS = 20_000
_GENERATOR = " (random generator)"


class State:
    """The current state of modules, functions or objects, with or without the values of their parameters.

    It consists of all buffers and attributes, also in nested containers and objects, of random generators in
    attributes, and of the variables of closures, classes and modules that the functions of a user use.
    """

    def __init__(self, *parts: Any, parameters: bool = False) -> None:
        self.parameters = parameters
        self.contents: dict[str, Any] = {}
        """Numbers, tensors, and the sizes or keys of containers, by a name such as "criterion.history[0]"."""
        self.saved: set[str] = set()
        """The names that are in a state_dict: persistent buffers, parameters, and modules with `get_extra_state`."""
        self._undo: list[Callable[[], object]] = []
        self._seen: dict[int, Any] = {}  # keeps the objects alive, so that their ids stay unique
        for part in parts:
            self._visit(part, "")

    @torch.no_grad()
    def restore(self) -> None:
        """Restore this state of the parts."""
        for undo in self._undo:
            undo()

    def changes(self, later: "State") -> list[str]:
        """Return the names, without indices of containers, of what differs in a later state of the same parts."""
        names = self.contents | later.contents
        changed = [name for name in names if not _same(self.contents.get(name, self), later.contents.get(name, self))]
        return list(dict.fromkeys(name.partition("[")[0] for name in changed))

    def _visit(self, value: Any, name: str, *, saved: bool = False) -> None:
        if saved:
            self.saved.add(name)
        if isinstance(value, _PLAIN):
            self.contents[name] = value
        elif id(value) not in self._seen and len(self._seen) < _MAX_OBJECTS:
            self._seen[id(value)] = value
            for child, key in self._record(value, name):
                self._visit(child, key, saved=saved)

    def _record(self, value: Any, name: str) -> Iterator[tuple[Any, str]]:  # noqa: C901, PLR0912 -- a case per type
        """Record the state of one object, and yield the objects in it with their names."""
        if isinstance(value, Tensor):
            if not is_lazy(value) and (self.parameters or not isinstance(value, nn.Parameter)):
                content = self.contents[name] = value.detach().clone()
                self._undo.append(lambda: value.detach().copy_(content) if value.shape == content.shape else None)
        elif isinstance(value, nn.Module):
            yield from self._record_module(value, name)
        elif isinstance(value, dict):
            items = dict(value)
            self.contents[name] = tuple(map(str, items))
            self._undo += [value.clear, partial(value.update, items)]
            yield from ((child, f"{name}[{key}]") for key, child in items.items())
        elif isinstance(value, list | deque | tuple):
            elements = tuple(value)
            self.contents[name] = len(elements)
            self._undo += [] if isinstance(value, tuple) else [value.clear, partial(value.extend, elements)]
            yield from ((child, f"{name}[{index}]") for index, child in enumerate(elements))
        elif isinstance(value, set):
            members = self.contents[name] = frozenset(value)
            self._undo += [value.clear, partial(value.update, members)]
        elif isinstance(value, torch.Generator):
            content = self.contents[name + _GENERATOR] = value.get_state()
            self._undo.append(partial(value.set_state, content))
        elif isinstance(value, random.Random):
            drawn = self.contents[name + _GENERATOR] = value.getstate()
            self._undo.append(partial(value.setstate, drawn))
        elif type(value).__module__.startswith("numpy"):
            self._record_numpy(value, name)
        elif isinstance(value, count):
            self.contents[name] = repr(value)
        elif isinstance(value, partial):
            yield from ((value.func, name), (value.args, f"{name}.args"), (value.keywords, f"{name}.keywords"))
        elif isinstance(value, MethodType):
            yield from ((value.__self__, name), (value.__func__, name))
        elif isinstance(value, FunctionType) and _is_users(value.__module__):
            yield from self._record_function(value)
        elif _is_users(type(value).__module__) and not isinstance(value, type | ModuleType):
            yield from self._record_attributes(value, name)

    def _record_module(self, module: nn.Module, name: str) -> Iterator[tuple[Any, str]]:
        fields = vars(module)
        for mapping in (value for value in fields.values() if isinstance(value, dict)):
            self._undo += [mapping.clear, partial(mapping.update, dict(mapping))]
        unsaved = module._non_persistent_buffers_set  # noqa: SLF001
        for key, buffer in module._buffers.items():  # noqa: SLF001
            suffix = " (persistent=False)" * (key in unsaved)
            self._visit(buffer, f"{name}.{key}{suffix}".lstrip("."), saved=key not in unsaved)
        for key, parameter in module._parameters.items():  # noqa: SLF001
            self._visit(parameter, f"{name}.{key}".lstrip("."), saved=True)
        yield from ((child, f"{name}.{key}".lstrip(".")) for key, child in module._modules.items())  # noqa: SLF001
        saves_itself = type(module).get_extra_state is not nn.Module.get_extra_state
        for child, key in self._record_attributes(module, name):
            self._visit(child, key, saved=saves_itself)

    def _record_attributes(self, value: Any, name: str) -> Iterator[tuple[Any, str]]:
        fields = getattr(value, "__dict__", {})
        self._undo += [fields.clear, partial(fields.update, dict(fields))]
        ignored = _MODULE_FIELDS if isinstance(value, nn.Module) else ()
        for key, child in list(fields.items()):
            if key not in ignored:
                yield child, f"{name}.{key}".lstrip(".")
        for owner in type(value).__mro__:
            if _is_users(owner.__module__) and id(owner) not in self._seen:
                self._seen[id(owner)] = owner
                yield from self._record_class(owner)

    def _record_class(self, owner: type) -> Iterator[tuple[Any, str]]:
        for key, value in list(vars(owner).items()):
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(function, FunctionType):
                yield function, ""
            elif not key.startswith("__") and key != "_abc_impl" and not hasattr(value, "__get__"):
                self._undo.append(partial(_set_back, owner, key, value))
                yield value, f"{owner.__name__}.{key} (class attribute)"

    def _record_function(self, function: FunctionType) -> Iterator[tuple[Any, str]]:
        """Record the variables of a function of the user: its attributes, its closure, and the globals it names."""
        yield from ((child, f"{function.__name__}.{key}") for key, child in list(vars(function).items()))
        self._undo.append(partial(vars(function).update, dict(vars(function))))
        for defaults in (function.__defaults__, function.__kwdefaults__):
            yield defaults, f"{function.__name__} (default argument)"
        for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # the cell is empty
                self._undo.append(partial(setattr, cell, "cell_contents", cell.cell_contents))
                yield cell.cell_contents, key
        variables = function.__globals__
        for key in sorted(_names(function.__code__) & variables.keys()):
            value = variables[key]
            if not isinstance(value, type | ModuleType):
                self._undo.append(partial(variables.__setitem__, key, value))
                yield value, f"{key} (global variable)"

    def _record_numpy(self, value: Any, name: str) -> None:
        if hasattr(value, "bit_generator"):
            state = value.bit_generator.state
            self.contents[name + _GENERATOR] = repr(state)
            self._undo.append(partial(setattr, value.bit_generator, "state", state))
        elif hasattr(value, "tobytes"):
            self.contents[name] = value.tobytes()
            if type(value).__name__ == "ndarray":
                self._undo.append(partial(value.__setitem__, ..., value.copy()))


def _set_back(owner: type, key: str, value: Any) -> None:
    if vars(owner).get(key) is not value:
        setattr(owner, key, value)


def _names(code: CodeType) -> set[str]:
    """Return the names of global variables and attributes in a function, and in the functions that it contains."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _is_users(module: str | None) -> bool:
    """Return whether code of this module may keep a state that its author is to know of."""
    return (module or "torch").partition(".")[0] not in _LIBRARIES


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same_type = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return same_type and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return False
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124 -- NaN
