"""Replaces old names of classes and functions in `_target_`s by their current names. Imports no torch.

If you move or rename a class or function that can be a `_target_`, add its old name to `RENAMES`, so that old run
folders and YAML files keep working.
"""

from typing import Any

_MERGED = {
    "losslab.data.corruption": "faults",
    "losslab.data.sklearn_datasets": "breast_cancer diabetes digits split",
    "losslab.data.synthetic": "counts line linear_synthetic",
    "losslab.data.transforms": "augment mix normalise view",
    "losslab.losses.base": "class_loss counted residual",
    "losslab.losses.bce": "prior_sigmoid",
    "losslab.losses.cross_entropy": "distillation kl_div poly1",
    "losslab.losses.focal": "sigmoid_focal",
    "losslab.losses.hinge": "multi_margin",
    "losslab.losses.hyperparameters": "holder",
    "losslab.losses.imbalance": "class_weights ldam logit_adjusted",
    "losslab.losses.jensen_shannon": "generalised_jensen_shannon",
    "losslab.losses.likelihoods": "gaussian_nll poisson_nll tweedie",
    "losslab.losses.mse": "brier l1 quantile rescaled_mse",
    "losslab.losses.noisy_labels": "asymmetric gce mae normalised",
    "losslab.losses.robust": "barron huber log_cosh tukey",
    "losslab.losses.scaled_logits": "logit_penalty",
    "losslab.losses.weighted_sum": "smoothed",
}
"""The modules that are now part of another module of their package."""
RENAMES = {f"{new.rpartition('.')[0]}.{old}": new for new, names in _MERGED.items() for old in names.split()} | {
    "losslab.callbacks": "losslab.training.callbacks",
    "losslab.callbacks.anneal": "losslab.training.callbacks.loss_schedules",
    "losslab.callbacks.checkpoints.BestAndLast": "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint",
    "losslab.callbacks.dashboard": "losslab.training.callbacks.tensorboard",
    "losslab.callbacks.deferred_reweighting": "losslab.training.callbacks.loss_schedules",
    "losslab.callbacks.dynamics": "losslab.analysis.dynamics.callback",
    "losslab.callbacks.gradients": "losslab.training.callbacks.gradient_norms",
    "losslab.callbacks.guard": "losslab.training.callbacks.non_finite",
    "losslab.callbacks.path.Path": "losslab.training.callbacks.weight_trajectory.WeightTrajectory",
    "losslab.data.corruption.cifar10n": "losslab.data.corruption.label_noise",
    "losslab.data.faults.fault.Fault": "losslab.data.corruption.base.Corruption",
    "losslab.data.faults.human": "losslab.data.corruption.label_noise",
    "losslab.data.module.MemoryDataModule": "losslab.data.module.ExperimentDataModule",
    "losslab.learner": "losslab.models.learner",
    "losslab.losses.adapter.Adapted": "losslab.losses.adapter.adapted.Adapted",
    "losslab.metrics": "losslab.models.metrics",
    "losslab.networks": "losslab.models",
    "losslab.networks.cifar_cnn": "losslab.models.cnn",
    "losslab.networks.resnet18": "losslab.models.cnn",
    "losslab.teacher": "losslab.training.teacher",
    "losslab.tensorboard": "losslab.training.loggers",
}
"""Maps old dotted names to current ones. For a name, the longest entry that is a prefix of the name is used."""


def current_name(target: str) -> str:
    """Return the current name for an old dotted name, and any other name unchanged."""
    parts = target.split(".")
    for end in range(len(parts), 1, -1):
        prefix = ".".join(parts[:end])
        if prefix in RENAMES:
            return ".".join([RENAMES[prefix], *parts[end:]])
    return target


def rename_targets(config: Any) -> Any:
    """Return a copy of a configuration in which each old name in a `_target_` is replaced by the current name."""
    if isinstance(config, dict):
        return {
            key: current_name(value) if key == "_target_" and isinstance(value, str) else rename_targets(value)
            for key, value in config.items()
        }
    return [rename_targets(each) for each in config] if isinstance(config, list) else config
