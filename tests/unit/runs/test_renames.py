"""Configurations that contain class names of an early version keep working."""

import pytest
from hydra.utils import get_object

from losslab.runs.renames import RENAMES, current_name, rename_targets

# Each `_target_` in conf/ of version 0.1.
TARGETS = """
losslab.callbacks.anneal.Anneal losslab.callbacks.checkpoints.BestAndLast losslab.callbacks.dashboard.Dashboard
losslab.callbacks.deferred_reweighting.DeferredReweighting losslab.callbacks.dynamics.Dynamics
losslab.callbacks.gradients.GradientNorms losslab.callbacks.guard.FiniteGuard losslab.callbacks.history.History
losslab.callbacks.lookahead.Lookahead losslab.callbacks.path.Path losslab.callbacks.progress.ProgressBar
losslab.callbacks.whitening.Whitening
losslab.data.breast_cancer.BreastCancer losslab.data.cifar10.CIFAR10 losslab.data.counts.Counts
losslab.data.diabetes.Diabetes losslab.data.digits.Digits losslab.data.faults.human.HumanNoise
losslab.data.faults.label_noise.Asymmetric losslab.data.faults.label_noise.PairFlip
losslab.data.faults.label_noise.Symmetric losslab.data.faults.long_tail.LongTail
losslab.data.faults.value_noise.Heteroscedastic losslab.data.faults.value_noise.Outliers
losslab.data.image_folder.ImageFolder losslab.data.line.Line losslab.data.linear_synthetic.LinearSynthetic
losslab.data.mix.Mix losslab.data.view.RandomShift
losslab.losses.asymmetric.AGCE losslab.losses.asymmetric.AUL losslab.losses.barron.Barron losslab.losses.bce.BCE
losslab.losses.bi_tempered.BiTempered losslab.losses.brier.Brier losslab.losses.class_weights.balanced
losslab.losses.class_weights.effective_number losslab.losses.cross_entropy.CrossEntropy
losslab.losses.distillation.Distillation losslab.losses.focal.Focal losslab.losses.gaussian_nll.GaussianNLL
losslab.losses.gce.GCE losslab.losses.generalised_jensen_shannon.GJS losslab.losses.hinge.Hinge
losslab.losses.hinge.SquaredHinge losslab.losses.huber.Huber losslab.losses.huber.SmoothL1
losslab.losses.jensen_shannon.JS losslab.losses.kl_div.KLDiv losslab.losses.l1.L1 losslab.losses.ldam.LDAM
losslab.losses.log_cosh.LogCosh losslab.losses.logit_adjusted.LogitAdjusted losslab.losses.logit_penalty.LogitPenalty
losslab.losses.mae.MAE losslab.losses.mae.RCE losslab.losses.mse.MSE losslab.losses.multi_margin.MultiMargin
losslab.losses.normalised.NCE losslab.losses.normalised.NFL losslab.losses.poisson_nll.PoissonNLL
losslab.losses.poly1.Poly1 losslab.losses.prior_sigmoid.PriorSigmoid losslab.losses.quantile.Expectile
losslab.losses.quantile.Quantile losslab.losses.rescaled_mse.RescaledMSE losslab.losses.robust.Cauchy
losslab.losses.robust.Charbonnier losslab.losses.robust.GemanMcClure losslab.losses.robust.Welsch
losslab.losses.scaled_logits.CosineSoftmax losslab.losses.scaled_logits.LogitNorm
losslab.losses.sigmoid_focal.SigmoidFocal losslab.losses.smoothed.Smoothed losslab.losses.tukey.Tukey
losslab.losses.tweedie.Tweedie losslab.losses.weighted_sum.WeightedSum
losslab.networks.airbench.Airbench losslab.networks.cifar_cnn.cifar_cnn losslab.networks.linear.linear
losslab.networks.linear.mlp losslab.networks.resnet18.resnet18 losslab.teacher.network_of losslab.tensorboard.RunLogger
"""

# Further names that the YAML files of users may contain.
MORE = """
losslab.losses.ClassLoss losslab.losses.Loss losslab.losses.ResidualLoss losslab.losses.base.Loss
losslab.losses.class_loss.ClassLoss losslab.losses.residual.ResidualLoss losslab.losses.adapter.Adapted
losslab.data.corruption.cifar10n.HumanNoise
losslab.data.faults.fault.Fault losslab.data.module.MemoryDataModule losslab.data.normalise.Normalise
losslab.data.augment.Augment losslab.networks.cosine.CosineLinear losslab.learner.Classifier losslab.metrics.ECE
losslab.losses.mae.GCE losslab.losses.huber.LogCosh
"""


@pytest.mark.parametrize("target", [*TARGETS.split(), *MORE.split()])
def test_old_target_resolves(target):
    assert callable(get_object(current_name(target)))


def test_current_names_are_not_changed():
    for name in ("losslab.losses.focal.Focal", "torch.nn.MSELoss", "losslab", "losslab.learners.Learner", "", "a..b"):
        assert current_name(name) == name
    for name in RENAMES.values():
        assert current_name(name) == name


def test_longest_prefix_is_renamed():
    assert current_name("losslab.networks.cifar_cnn.cifar_cnn") == "losslab.models.cnn.cifar_cnn"
    assert current_name("losslab.networks.linear.mlp") == "losslab.models.linear.mlp"


def test_targets_are_renamed_at_any_depth_and_other_values_are_not():
    old = {"_target_": "losslab.teacher.network_of", "a": [{"_target_": "losslab.metrics.ECE"}], "b": "losslab.metrics"}
    assert rename_targets(old) == {
        "_target_": "losslab.training.teacher.network_of",
        "a": [{"_target_": "losslab.models.metrics.ECE"}],
        "b": "losslab.metrics",
    }
    assert rename_targets({"_target_": 3}) == {"_target_": 3}
    assert rename_targets(None) is None
