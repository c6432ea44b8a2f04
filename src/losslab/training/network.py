"""Instantiates the network of a run. A network from outside losslab is tried once, since it may need more care.

Such a network may get the shapes of its weights, or even its layers, from the first call; it may fail in the memory
format channels_last, which losslab uses for images; and its sizes may not fit the data.
"""

import inspect
import logging
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from losslab.data.batch import DataSpec
from losslab.doctor.probe import preserve_state
from losslab.errors import LabError, message_of, user_line
from losslab.losses.base import Loss
from losslab.models.cosine import with_cosine_outputs
from losslab.runs.trust import leaves
from losslab.training.instantiate import make

logger = logging.getLogger("losslab")

_TOLERANCE = 1e-3
"""The largest difference of outputs, relative to their size, that the memory format may make by rounding."""
_OUTPUT_ARGUMENTS = re.compile(
    r"(num|n|nb)_?(class|classes|labels|outputs?)|class(es)?|(out|output)_?(dim|features|size)s?"
)
"""Names that networks give to their number of outputs."""
_SHAPE_ERROR = re.compile(r"cannot be multiplied|channels|shape|size|dimension", re.IGNORECASE)


def make_network(config: dict[str, Any], spec: DataSpec, loss: Loss, *, checked: bool = False) -> nn.Module:
    """Instantiate the network of a run, with as many outputs as the loss needs for these data.

    `checked` says that a network was made before from an equal configuration. Then the arguments are not checked again,
    which takes most of the time for small networks of losslab.

    Raises:
        LabError: the network cannot be instantiated, or its sizes do not fit the data and the loss.
    """
    model, outputs = config["model"], loss.outputs(spec.targets)
    sizes = {"input_shape": spec.input_shape, "outputs": outputs}
    targets = [value for key, value in leaves(model) if key.rpartition(".")[2] == "_target_"]
    if checked and len(targets) == 1 and str(targets[0]).startswith("losslab."):
        arguments = {name: value for name, value in model.items() if not name.startswith("_")}
        network: nn.Module = get_object(targets[0])(**arguments, **sizes)
        given = {*sizes}
    else:
        network, given = _instantiate(model, sizes)
    # Now, so that float64 weights can be loaded; Lightning would do it later.
    dtype = torch.float64 if str(config["trainer"].get("precision")) == "64-true" else torch.float32
    network = network.double() if dtype is torch.float64 else network
    inputs = torch.rand(2, *spec.input_shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    is_foreign = not str(model["_target_"]).startswith("losslab.")
    works = is_foreign and _try(network, inputs, outputs, model, given)
    if loss.cosine_outputs:
        network = with_cosine_outputs(network)
        network = network.double() if dtype is torch.float64 else network
    if works:
        _restore_dimensions(network, inputs, outputs)
    if len(spec.input_shape) < 2:
        return network
    reason = _problem_of_channels_last(network, inputs) if works else None
    if reason is None:
        return network.to(memory_format=torch.channels_last)
    return _with_contiguous_images(network, reason)


def _instantiate(config: dict[str, Any], sizes: dict[str, Any]) -> tuple[nn.Module, set[str]]:
    """Instantiate the network with those of the `sizes` that it takes. Return it, and the names of these sizes."""
    given = _accepted(config, sizes)
    state = torch.get_rng_state()
    while True:
        try:
            network = make("model", config, **{name: sizes[name] for name in given})
            break
        except LabError as error:  # `**kwargs` of the target may be passed on to a function that lacks them
            refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if refused is None or refused[1] not in given or refused[1] in config:
                raise
            given = given - {refused[1]}
            torch.set_rng_state(state)
    if not isinstance(network, nn.Module):
        raise LabError(f"model: {config['_target_']} gives a {type(network).__name__}, not a torch.nn.Module")
    return network, given


def _accepted(config: dict[str, Any], names: Iterable[str]) -> set[str]:
    """Return which of the names are arguments of the target; all, if it takes any or its signature is not known."""
    try:
        parameters = inspect.signature(get_object(config["_target_"])).parameters
    except Exception:  # noqa: BLE001 -- there is no such target, which `make` reports, or it has no signature
        return set(names)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name for name in names if takes_any or name in parameters or name in config}


def _try(network: nn.Module, inputs: Tensor, outputs: int, config: dict[str, Any], given: set[str]) -> bool:
    """Call the network once, and create the weights that it lacks. Return whether the call succeeded.

    Raises:
        LabError: the network does not take such inputs, or does not return a tensor with this number of outputs.
    """
    name = str(config["_target_"]).rpartition(".")[2]
    try:
        if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
            _create_missing_weights(network, inputs)
        before = _parameters(network)
        result, after = _call(network, inputs)
        if after.keys() != before.keys():
            _create_missing_weights(network, inputs)
            before = _parameters(network)
            result, after = _call(network, inputs)
    except Exception as error:  # noqa: BLE001 -- it may raise anything
        _explain(error, network, inputs, name, config, given)
        return False  # the doctor reports it for the first batch, on the device of the run
    replaced = [key for key, parameter in before.items() if after.get(key) is not parameter]
    if replaced:
        raise LabError(f"model: {name} makes {replaced[0]} anew in each call, so it cannot learn: make it in __init__")
    if not isinstance(result, Tensor):
        raise LabError(
            f"model: {name} returns a {type(result).__name__}, but a loss needs one tensor (N, {outputs}): "
            "return only the outputs, such as result[0] or result.logits"
        )
    if "outputs" not in given and result.ndim == 2 and result.shape[1] != outputs:
        key = next((key for key in _arguments(config) if _OUTPUT_ARGUMENTS.fullmatch(key)), "num_classes")
        raise LabError(
            f"model: {name} has {result.shape[1]} outputs, but these data and this loss need {outputs}: "
            f"set {_override(config, key, outputs)}"
        )
    return True


def _restore_dimensions(network: nn.Module, inputs: Tensor, outputs: int) -> None:
    """Reshape the outputs to (N, outputs) if the network squeezes them, always or for a single example."""
    try:
        full, single = (_call(network, part, evaluate=True)[0].shape for part in (inputs, inputs[:1]))
    except Exception:  # noqa: BLE001 -- it may raise anything; the doctor reports it
        return
    n = len(inputs)
    if (full, outputs) == ((n,), 1) or (full == (n, outputs) and single == (outputs,)):
        with suppress(RuntimeError):  # a ScriptModule takes no hooks
            for module in _layers_of_wrapper(network):
                module.register_forward_hook(partial(_reshape, outputs))


def _reshape(outputs: int, _: nn.Module, arguments: tuple[Any, ...], result: Any) -> Any:
    return result.reshape(arguments[0].shape[0], outputs) if isinstance(result, Tensor) else result


def _layers_of_wrapper(network: nn.Module) -> set[nn.Module]:
    """Return the network, and the one inside of torch.compile or DataParallel."""
    inner = getattr(network, "_orig_mod", getattr(network, "module", network))
    return {network, inner} if isinstance(inner, nn.Module) else {network}


def _create_missing_weights(network: nn.Module, inputs: Tensor) -> None:
    """Call the network, which creates weights in its first call. They are drawn from torch's generator.

    Buffers that exist already keep their values.
    """
    buffers = {buffer: buffer.clone() for buffer in network.buffers() if not is_lazy(buffer)}
    with torch.no_grad():
        network(inputs.clone())
        for module in network.modules():
            if isinstance(module, _NormBase) and module.running_mean not in buffers:
                module.reset_running_stats()
        for buffer, value in buffers.items():
            buffer.copy_(value)


def _explain(
    error: Exception, network: nn.Module, inputs: Tensor, name: str, config: dict[str, Any], given: set[str]
) -> None:
    """Raise a LabError if the first call of the network raised an exception because of sizes, dtypes or lazy layers."""
    message, shape = message_of(error, 200), tuple(inputs.shape[1:])
    if any(map(is_lazy, network.parameters())):
        raise LabError(f"model: {name} cannot create its weights for an example of shape {shape}: {message}") from error
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), inputs.dtype)
    if dtype != inputs.dtype and _works(network, inputs.to(dtype)):
        precisions = {torch.float64: "64-true", torch.bfloat16: "bf16-true", torch.float16: "16-true"}
        raise LabError(
            f"model: {name} has weights of {dtype} and gets inputs of {inputs.dtype}: set "
            f"trainer.precision={precisions.get(dtype, '32-true')}, or convert the inputs in forward"
        ) from error
    if "input_shape" not in given and _SHAPE_ERROR.search(message):
        line = f"{place}: {message}" if (place := user_line(error)) else message
        raise LabError(
            f"model: {name} does not take an example of shape {shape} ({line}): {_advice(config, message)}"
        ) from error


def _arguments(config: dict[str, Any]) -> list[str]:
    """Return the names of the arguments of the target, those that are set first."""
    names = [name for name in config if not str(name).startswith("_")]
    try:
        parameters = inspect.signature(get_object(config["_target_"])).parameters.values()
    except Exception:  # noqa: BLE001 -- a function written in C++ has no signature
        return names
    named = [each.name for each in parameters if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}]
    return list(dict.fromkeys([*names, *named]))


def _advice(config: dict[str, Any], message: str) -> str:
    """Return what to set, so that the network takes inputs for which it raised an exception with this message."""
    if "view size is not compatible" in message:
        return "write reshape instead of view"
    if "is invalid for input of size" in message:
        return "write sizes in forward that follow from the inputs, such as x.flatten(1)"
    sizes = re.search(r"\(\d+x(\d+) and (\d+)x\d+\)", message)
    keys = [key for key, value in config.items() if sizes is not None and str(value) == sizes[2]]
    if sizes is not None and len(keys) == 1:
        return f"set {_override(config, keys[0], int(sizes[1]))}"
    names = ", ".join(_arguments(config)) or "none"
    return f"set the arguments of model that depend on the shape (it has {names})"


def _override(config: dict[str, Any], key: str, value: int) -> str:
    return f"{'' if key in config else '+'}model.{key}={value}"


def _with_contiguous_images(network: nn.Module, reason: str) -> nn.Module:
    """Keep a network in the contiguous memory format, and make the images contiguous that it gets."""
    logger.info("the network gets contiguous images: in the memory format channels_last, which is faster, %s", reason)
    try:
        for module in _layers_of_wrapper(network):
            module.register_forward_pre_hook(_make_contiguous)
    except RuntimeError as error:  # a ScriptModule takes no hooks
        raise LabError(
            f"model: this TorchScript network does not work in the memory format channels_last ({reason}): use reshape "
            "instead of view, or give the network itself"
        ) from error
    return network.to(memory_format=torch.contiguous_format)


def _make_contiguous(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in arguments)


def _problem_of_channels_last(network: nn.Module, inputs: Tensor) -> str | None:
    """Return what goes wrong only in the memory format channels_last; None if nothing does."""
    images = inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
    try:
        expected, _ = _call(network, inputs, evaluate=True)
    except Exception:  # noqa: BLE001 -- it may raise anything
        return None
    try:
        network.to(memory_format=torch.channels_last)
        _call(network, images)
        result, _ = _call(network, images, evaluate=True)
    except Exception as error:  # noqa: BLE001 -- it may raise anything
        return f"it raises {type(error).__name__} ({message_of(error, 60)})"
    finally:
        network.to(memory_format=torch.contiguous_format)
    limit = _TOLERANCE * max(1.0, float(expected.abs().max()))
    if result.shape == expected.shape and not bool((result - expected).abs().max() > limit):
        return None
    # Random outputs cannot be compared.
    is_random = not torch.equal(expected, _call(network, inputs, evaluate=True, seed=1)[0])
    return None if is_random else "its outputs differ"


def _works(network: nn.Module, inputs: Tensor) -> bool:
    try:
        _call(network, inputs)
    except Exception:  # noqa: BLE001 -- it may raise anything
        return False
    return True


def _call(
    network: nn.Module, inputs: Tensor, *, evaluate: bool = False, seed: int | None = None
) -> tuple[Any, dict[str, nn.Parameter]]:
    """Call the network in training mode and backpropagate, or in evaluation mode. Change no state.

    Return the result, and the parameters after the call.
    """
    with preserve_state(network), torch.set_grad_enabled(not evaluate), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training will repeat every warning
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if evaluate:
            network.eval()
        result = network(inputs.clone())
        if not evaluate and isinstance(result, Tensor) and result.requires_grad:
            weights = [weight for weight in network.parameters() if weight.requires_grad]
            torch.autograd.grad(result.square().sum(), weights, allow_unused=True)
        return result, _parameters(network)


def _parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    return dict(network.named_parameters())
