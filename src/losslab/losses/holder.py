"""What holds numeric hyperparameters: in a declared range, and as numbers or as tensors."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.card import Parameter


def place_of(loss: nn.Module, parameter: str) -> "tuple[Holder, str]":
    """The module that holds a hyperparameter of a loss or of a part of it, and its name there.

    Args:
        loss: the whole.
        parameter: as under `loss.` on the command line, such as "gamma" or "terms.mae.weight".

    Raises:
        LabError: it names those there are.
    """
    places = {
        f"{path}.{name}".lstrip("."): (module, name)
        for path, module in loss.named_modules()
        if isinstance(module, Holder)
        for name in module.hyperparameters
    }
    if parameter not in places:
        message = f"{parameter} is no number of this loss: it has {', '.join(places) or 'none'}"
        raise LabError(message)
    return places[parameter]


class Holder(nn.Module):
    """A module with numeric hyperparameters, each of which may be a 0-dim tensor."""

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {}
    """Each by the name of its attribute and of the constructor's argument."""

    def hold(self, name: str, value: float | Tensor) -> None:
        """Keep a declared hyperparameter: numbers exactly as they are, tensors as buffers that follow the device.

        The buffers are not persistent: a hyperparameter is configuration, not something learnt.

        Raises:
            LabError: a number outside the declared range. Tensors pass: to look into one is to branch on values.
        """
        if isinstance(value, Tensor):
            self.__dict__.pop(name, None)
            self.register_buffer(name, value, persistent=False)
            return
        declared = self.hyperparameters[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not declared.holds(value):
            message = f"{type(self).__name__}: {name} must be a number in {declared.range}, got {value!r}"
            raise LabError(message)
        self._buffers.pop(name, None)
        setattr(self, name, float(value))
