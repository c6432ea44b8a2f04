"""Where in a network, a batch or a loss something is met first that is NaN or infinite."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from losslab.data.batch import Batch
from losslab.learner import Learner, uncompiled
from losslab.targets import encode


def culprit(learner: Learner, what: str, batch: Batch | None) -> str:
    """Name the layer in which something non-finite is met first.

    For a gradient that is the layer nearest to the output, where backpropagation began to go wrong; for a weight the
    first layer that holds one; for a loss the first layer whose output is not finite, found by running it again.
    """
    if what == "gradient":
        return _first_bad_gradient({name: p.grad for name, p in learner.named_parameters()}) or "no gradient"
    bad = [name for name, p in learner.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        return f"the weights of {layer(bad[0])}"
    if batch is None:
        return "a batch that is not known"
    for name, values in (("inputs", batch.inputs), ("targets", batch.target)):
        wrong = ~torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else ~torch.isfinite(values)
        if wrong.any():
            return f"the {name} of the batch ({_named(batch.index[wrong])})"
    where = _first_bad_output(learner.network, batch.inputs)
    return where or f"the loss itself, as the network's outputs are finite{_bad_scores(learner, batch)}"


def under(learner: Learner, split: str = "train") -> str:
    """The loss; of a sum also its terms whose sums over the split so far are not finite."""
    averages, name = learner.averages[split], type(learner.loss).__name__
    terms = [term for term in learner.loss.term_names if not torch.isfinite(averages[f"loss/{term}"].total)]
    return f"{name} (its term{'s' * (len(terms) > 1)} {', '.join(terms)})" if terms else name


def own_gradient(trainer: Trainer, learner: Learner, batch: Batch, number: int) -> str | None:
    """Where the gradient of this process's share of a batch, computed again without the others', is not finite."""
    learner.on_train_batch_start(batch, number)  # the same dropout
    with torch.enable_grad(), trainer.precision_plugin.train_step_context():
        loss = learner.training_step(batch, number)
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return _first_bad_gradient(dict(zip(parameters, gradients, strict=True)))


def layer(parameter: str) -> str:
    """The name of the layer that a parameter is of."""
    return parameter.rpartition(".")[0] or parameter


def _first_bad_gradient(gradients: Mapping[str, Tensor | None]) -> str | None:
    bad = [name for name, grad in gradients.items() if grad is not None and not torch.isfinite(grad).all()]
    return f"the gradient of {layer(bad[-1])}" if bad else None


def _named(index: Tensor) -> str:
    rest = f" and {len(index) - 5} more" if len(index) > 5 else ""
    return f"example{'s' * (len(index) > 1)} {', '.join(map(str, index[:5].tolist()))}{rest}"


def _bad_scores(learner: Learner, batch: Batch) -> str:
    with torch.no_grad(), uncompiled(learner.network):
        outputs = learner(batch.inputs)
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        target = encode(batch.target, learner.facts.kind, learner.kind, learner.facts.targets, dtype)
        scores = learner.loss.per_example(learner.loss.seen(outputs, batch.inputs, learner.network), target)
    wrong = ~torch.isfinite(scores)
    return f" ({_named(batch.index[wrong])})" if wrong.any() else ""


def _first_bad_output(network: nn.Module, inputs: Tensor) -> str | None:
    met: list[str] = []

    def watch(name: str, part: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                met.append(f"the output of {name} ({type(part).__name__})")

        return part.register_forward_hook(hook)

    leaves = [(name, part) for name, part in network.named_modules() if not list(part.children())]
    handles = [watch(f"network.{name}".rstrip("."), part) for name, part in leaves]
    with torch.no_grad(), uncompiled(network):
        network(inputs)
    for handle in handles:
        handle.remove()
    return met[0] if met else None
