"""Replaces old names of classes and functions in `_target_`s by their current names. Imports no torch.

If you move or rename a class or function that can be a `_target_`, add its old name to `RENAMES`, so that old run
folders and YAML files keep working.
"""

from typing import Any

RENAMES = {
    "losslab.callbacks": "losslab.training.callbacks",
    "losslab.callbacks.anneal": "losslab.training.callbacks.loss_schedules",
    "losslab.callbacks.checkpoints.BestAndLast": "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint",
    "losslab.callbacks.dashboard": "losslab.training.callbacks.tensorboard",
    "losslab.callbacks.deferred_reweighting": "losslab.training.callbacks.loss_schedules",
    "losslab.callbacks.dynamics": "losslab.analysis.dynamics.callback",
    "losslab.callbacks.gradients": "losslab.training.callbacks.gradient_norms",
    "losslab.callbacks.guard": "losslab.training.callbacks.non_finite",
    "losslab.callbacks.path.Path": "losslab.training.callbacks.weight_trajectory.WeightTrajectory",
    "losslab.data.augment": "losslab.data.transforms",
    "losslab.data.breast_cancer": "losslab.data.sklearn_datasets",
    "losslab.data.corruption.cifar10n": "losslab.data.corruption.label_noise",
    "losslab.data.counts": "losslab.data.synthetic",
    "losslab.data.diabetes": "losslab.data.sklearn_datasets",
    "losslab.data.digits": "losslab.data.sklearn_datasets",
    "losslab.data.faults": "losslab.data.corruption",
    "losslab.data.faults.fault.Fault": "losslab.data.corruption.base.Corruption",
    "losslab.data.faults.human": "losslab.data.corruption.label_noise",
    "losslab.data.line": "losslab.data.synthetic",
    "losslab.data.linear_synthetic": "losslab.data.synthetic",
    "losslab.data.mix": "losslab.data.transforms",
    "losslab.data.module.MemoryDataModule": "losslab.data.module.ExperimentDataModule",
    "losslab.data.normalise": "losslab.data.transforms",
    "losslab.data.split": "losslab.data.sklearn_datasets",
    "losslab.data.view": "losslab.data.transforms",
    "losslab.learner": "losslab.models.learner",
    "losslab.losses.adapter.Adapted": "losslab.losses.adapter.adapted.Adapted",
    "losslab.losses.asymmetric": "losslab.losses.noisy_labels",
    "losslab.losses.barron": "losslab.losses.robust",
    "losslab.losses.brier": "losslab.losses.mse",
    "losslab.losses.class_loss": "losslab.losses.base",
    "losslab.losses.class_weights": "losslab.losses.imbalance",
    "losslab.losses.counted": "losslab.losses.base",
    "losslab.losses.distillation": "losslab.losses.cross_entropy",
    "losslab.losses.gaussian_nll": "losslab.losses.likelihoods",
    "losslab.losses.gce": "losslab.losses.noisy_labels",
    "losslab.losses.generalised_jensen_shannon": "losslab.losses.jensen_shannon",
    "losslab.losses.holder": "losslab.losses.hyperparameters",
    "losslab.losses.huber": "losslab.losses.robust",
    "losslab.losses.kl_div": "losslab.losses.cross_entropy",
    "losslab.losses.l1": "losslab.losses.mse",
    "losslab.losses.ldam": "losslab.losses.imbalance",
    "losslab.losses.log_cosh": "losslab.losses.robust",
    "losslab.losses.logit_adjusted": "losslab.losses.imbalance",
    "losslab.losses.logit_penalty": "losslab.losses.scaled_logits",
    "losslab.losses.mae": "losslab.losses.noisy_labels",
    "losslab.losses.multi_margin": "losslab.losses.hinge",
    "losslab.losses.normalised": "losslab.losses.noisy_labels",
    "losslab.losses.poisson_nll": "losslab.losses.likelihoods",
    "losslab.losses.poly1": "losslab.losses.cross_entropy",
    "losslab.losses.prior_sigmoid": "losslab.losses.bce",
    "losslab.losses.quantile": "losslab.losses.mse",
    "losslab.losses.rescaled_mse": "losslab.losses.mse",
    "losslab.losses.residual": "losslab.losses.base",
    "losslab.losses.sigmoid_focal": "losslab.losses.focal",
    "losslab.losses.smoothed": "losslab.losses.weighted_sum",
    "losslab.losses.tukey": "losslab.losses.robust",
    "losslab.losses.tweedie": "losslab.losses.likelihoods",
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
