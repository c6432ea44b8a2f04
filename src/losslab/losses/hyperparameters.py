"""Numeric hyperparameters of a loss, declared in the class body. The constructor is made from the declarations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from losslab.errors import LabError


@dataclass(frozen=True)
class Parameter:
    """The declaration of a numeric hyperparameter."""

    meaning: str
    """The meaning of the hyperparameter in a few words, and its symbol in the formula."""
    range: str
    """The interval in which the loss is defined, such as "(0, 1]" or "[0, inf)". Numbers outside it are rejected."""
    origin: str
    """The source of the default value."""
    tried: tuple[float, ...]
    """Values worth comparing. Figures show the loss at each of them, and the tests check it there."""

    def contains(self, value: float) -> bool:
        """Return whether a value is in the range; False for NaN."""
        low, high = map(float, self.range[1:-1].split(","))
        above = value > low if self.range[0] == "(" else value >= low
        below = value < high if self.range[-1] == ")" else value <= high
        return above and below


@dataclass(frozen=True)
class _Argument:
    """The declaration of a constructor argument in a class body."""

    default: Any
    init: bool = True
    kw_only: bool = False
    parameter: Parameter | None = None


def hyperparameter(meaning: str, range: str, origin: str, tried: tuple[float, ...], *, default: float) -> Any:  # noqa: A002
    """Declare a hyperparameter in a class body: the fields of `Parameter`, and the default of the constructor.

    Example: `gamma: float | Tensor = hyperparameter("γ, the focus", "[0, inf)", "the paper's", (0.5, 2), default=2.0)`
    """
    return _Argument(default, parameter=Parameter(meaning, range, origin, tried))


def argument(*, default: Any = inspect.Parameter.empty, init: bool = True, kw_only: bool = False) -> Any:
    """Declare a constructor argument that is not a hyperparameter. The constructor sets the attribute of this name.

    Args:
        default: the default value; if missing, the argument is required.
        init: whether the constructor takes the argument. False fixes an argument of a base class at `default`.
        kw_only: whether the argument must be passed by name.
    """
    return _Argument(default, init, kw_only)


class HasHyperparameters(nn.Module):
    """A module with numeric hyperparameters, each a float or a 0-dim tensor.

    A subclass that declares hyperparameters with `hyperparameter`, and other arguments with `argument`, gets a
    constructor. The constructor takes the arguments of the subclass first, then those of the base class, sets the
    attributes, and calls `__post_init__` if the subclass defines it. The hyperparameters are added to the docstring of
    the subclass. A subclass that defines `__init__` keeps it, and must call `set_hyperparameter` in it.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {}
    """The declaration of each hyperparameter. The key is the name of the attribute and of the constructor argument."""

    def __init__(self) -> None:
        super().__init__()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, _Argument)}
        for name in own:
            delattr(cls, name)  # because register_buffer rejects the name of a class attribute
        declared = {name: each.parameter for name, each in own.items() if each.parameter is not None}
        if declared:
            inherited = {name: each for name, each in cls.hyperparameters.items() if name not in declared}
            cls.hyperparameters = declared | inherited
            described = [
                f"    {name}: {each.meaning}; in {each.range}. Default: {own[name].default:g} ({each.origin})."
                for name, each in declared.items()
            ]
            cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Hyperparameters:", *described])
        if own and "__init__" not in vars(cls):
            cls.__init__ = _constructor(cls, own)  # type: ignore[method-assign]

    def set_hyperparameter(self, name: str, value: float | Tensor) -> None:
        """Set a declared hyperparameter. A number becomes a float; a tensor becomes a buffer, which moves with `to()`.

        The buffer is not persistent, because a hyperparameter belongs to the configuration, not to the learnt state.

        Raises:
            LabError: the value is neither a number in the declared range nor a tensor. A tensor is not checked.
        """
        if isinstance(value, Tensor):
            self.__dict__.pop(name, None)
            self.register_buffer(name, value, persistent=False)
            return
        declared = self.hyperparameters[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not declared.contains(value):
            raise LabError(f"{type(self).__name__}: {name} must be a number in {declared.range}, got {value!r}")
        self._buffers.pop(name, None)
        setattr(self, name, float(value))

    hold = set_hyperparameter
    """The former name of `set_hyperparameter`, kept for users' losses that call it."""


def find_hyperparameter(loss: nn.Module, path: str) -> tuple[HasHyperparameters, str]:
    """Return the module inside a loss that has the hyperparameter at `path`, and the name of its attribute there.

    `path` is the config key without `loss.`, such as "gamma" or "terms.mae.weight". If there is no hyperparameter at
    this path, raise a LabError that lists all hyperparameters of the loss.
    """
    owners = {
        f"{prefix}.{name}".lstrip("."): (module, name)
        for prefix, module in loss.named_modules()
        if isinstance(module, HasHyperparameters)
        for name in module.hyperparameters
    }
    if path not in owners:
        raise LabError(f"{path} is not a hyperparameter of this loss: it has {', '.join(owners) or 'none'}")
    return owners[path]


def _constructor(cls: type[HasHyperparameters], own: Mapping[str, _Argument]) -> Callable[..., None]:
    """Make the `__init__` of a class that declares its arguments in its body."""
    kinds = inspect.Parameter
    first, *rest = inspect.signature(cls.__init__).parameters.values()
    inherited = {each.name: each for each in rest if each.kind not in {kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD}}
    annotations = {**inspect.get_annotations(cls), **{name: each.annotation for name, each in inherited.items()}}
    parameters = [
        kinds(
            name,
            kinds.KEYWORD_ONLY if each.kw_only else kinds.POSITIONAL_OR_KEYWORD,
            default=each.default,
            annotation=annotations.get(name, Any),
        )
        for name, each in own.items()
        if each.init
    ]
    parameters += [each for name, each in inherited.items() if name not in own]
    signature = inspect.Signature([first, *sorted(parameters, key=lambda each: each.kind)])
    fixed = {name: each.default for name, each in own.items() if not each.init}

    def __init__(self: HasHyperparameters, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.__init__() {error}") from None
        bound.apply_defaults()
        values = {**fixed, **bound.arguments}
        super(cls, self).__init__(**{name: values[name] for name in inherited})
        for name, each in own.items():
            if name in inherited:
                continue  # the constructor of the base class has set it
            if each.parameter is None:
                setattr(self, name, values[name])
            else:
                self.set_hyperparameter(name, values[name])
        if "__post_init__" in vars(cls):
            vars(cls)["__post_init__"](self)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return __init__
