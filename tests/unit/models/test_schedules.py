"""Lengths of schedules are filled in as the schedule counts them. Schedules that do not fit the run are reported."""

from functools import partial

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.swa_utils import SWALR

from losslab.errors import LabError
from losslab.models.schedules import RunLength, find_misfits, make_schedule, monitors_metric, run_length
from losslab.training import experiment as lab

STEPS, EPOCHS = RunLength(60, "step", 10), RunLength(6, "epoch", 1)


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def make(factory, length=EPOCHS, mode="min", **keywords):
    return make_schedule(partial(factory, **keywords), optimizer(), mode, lambda: length)


def trainer(**options):
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options)


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({"max_epochs": 3}, 30, 3),
        ({"max_epochs": 3, "accumulate_grad_batches": 4}, 9, 3),
        ({"max_epochs": 3, "max_steps": 12}, 12, 2),
        ({"max_epochs": -1, "max_steps": 25}, 25, 3),
        ({"max_epochs": 3, "max_steps": 1000}, 30, 3),
        ({"max_epochs": -1, "max_steps": 10**12}, 10**12, 10**11),
        ({"max_epochs": 3, "callbacks": [GradientAccumulationScheduler({1: 5})]}, 14, 3),
    ],
)
def test_run_length_is_counted_in_steps_or_in_epochs(options, steps, epochs):
    assert run_length(trainer(**options), 10, "step").count == steps
    assert run_length(trainer(**options), 10, "epoch").count == epochs


def own_schedule(optimizer, max_epochs, num_training_steps, steps_per_epoch, warmup=0):
    return optimizer, max_epochs, num_training_steps, steps_per_epoch, warmup


class OwnSchedule(torch_schedulers.LRScheduler):
    def __init__(self, optimizer, total_steps, warmup_steps=0):
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        super().__init__(optimizer)

    def get_lr(self):
        return [1.0]


class OwnEpochs(torch_schedulers.LRScheduler):
    """Names its lengths epochs, as that of lightning-bolts, but they count calls of step."""

    def __init__(self, optimizer, max_epochs, warmup_epochs=0):
        self.max_epochs, self.warmup_epochs = max_epochs, warmup_epochs
        super().__init__(optimizer)

    def get_lr(self):
        return [1.0]


class OwnEpochsOfSteps(OwnEpochs):
    def __init__(self, optimizer, max_epochs, steps_per_epoch, warmup_epochs=0):
        self.steps_per_epoch = steps_per_epoch
        super().__init__(optimizer, max_epochs, warmup_epochs)


@pytest.mark.parametrize("length", [STEPS, EPOCHS])
def test_lengths_are_filled_in_as_the_schedule_counts(length):
    assert make(torch_schedulers.CosineAnnealingLR, length).T_max == length.count
    assert make(torch_schedulers.CosineAnnealingLR, length, T_max=None).T_max == length.count
    assert make(torch_schedulers.OneCycleLR, length, max_lr=1.0).total_steps == length.count
    assert make(OwnSchedule, length).total_steps == length.count
    assert make(own_schedule, length)[1:] == (6, length.count, length.per_epoch, 0)
    assert make(OwnEpochs, length).max_epochs == length.count
    assert make(OwnEpochsOfSteps, length).max_epochs == 6


def test_one_cycle_with_epochs_keeps_them():
    cycle = partial(make, torch_schedulers.OneCycleLR, max_lr=1.0)
    assert cycle(STEPS, epochs=9).total_steps == 90
    assert cycle(EPOCHS, epochs=9).total_steps == 9
    assert cycle(STEPS, epochs=9, steps_per_epoch=5).total_steps == 45
    assert cycle(STEPS, steps_per_epoch=10).total_steps == 60


def test_nested_schedules_get_the_length_of_their_part():
    parts = [partial(torch_schedulers.LinearLR, total_iters=20), partial(torch_schedulers.CosineAnnealingLR)]
    sequence = make(torch_schedulers.SequentialLR, STEPS, schedulers=parts, milestones=[20])
    assert sequence._schedulers[1].T_max == 40
    assert not list(find_misfits(sequence, STEPS))
    chain = make(torch_schedulers.ChainedScheduler, EPOCHS, schedulers=[partial(torch_schedulers.CosineAnnealingLR)])
    assert chain._schedulers[0].T_max == 6


def decay(step, total_steps):
    return 1 - step / total_steps


def test_functions_of_a_lambda_schedule_get_the_length():
    schedule = make(torch_schedulers.LambdaLR, STEPS, lr_lambda=partial(decay))
    for _ in range(15):
        schedule.optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == [0.75]


class OwnPlateau(torch_schedulers.ReduceLROnPlateau):
    pass


def test_mode_is_filled_in_for_schedulers_that_monitor_the_metric():
    assert make(OwnPlateau, mode="max").mode == "max"
    assert make(OwnPlateau, mode="max", patience=1).mode == "max"
    cyclic = make(torch_schedulers.CyclicLR, mode="max", base_lr=0.1, max_lr=1.0, cycle_momentum=False)
    assert cyclic.mode == "triangular"


FITTING = [
    (torch_schedulers.CosineAnnealingLR, {"T_max": 5}),
    (torch_schedulers.CosineAnnealingLR, {"T_max": 6}),
    (torch_schedulers.OneCycleLR, {"max_lr": 1.0, "total_steps": 6}),
    (torch_schedulers.StepLR, {"step_size": 5}),
    (torch_schedulers.MultiStepLR, {"milestones": [2, 5]}),
    (torch_schedulers.LinearLR, {"total_iters": 3}),
    (torch_schedulers.PolynomialLR, {"total_iters": 6}),
    (torch_schedulers.CosineAnnealingWarmRestarts, {"T_0": 2}),
    (torch_schedulers.CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3, "cycle_momentum": False}),
    (torch_schedulers.ExponentialLR, {"gamma": 0.9}),
    (torch_schedulers.ReduceLROnPlateau, {"patience": 3}),
    (OwnSchedule, {"total_steps": 6, "warmup_steps": 2}),
    (OwnEpochs, {"max_epochs": 6, "warmup_epochs": 2}),
    (SWALR, {"swa_lr": 0.1, "anneal_epochs": 6}),
]
MISFITS = [
    (torch_schedulers.CosineAnnealingLR, {"T_max": 60}, "ends after T_max=60 epochs, but this run has 6 epochs"),
    (torch_schedulers.CosineAnnealingLR, {"T_max": 3}, "raises the rate again after T_max=3 epochs"),
    (torch_schedulers.OneCycleLR, {"max_lr": 1.0, "total_steps": 60}, "set scheduler.scheduler.total_steps=6"),
    (torch_schedulers.StepLR, {"step_size": 6}, "lowers the rate after step_size=6 epochs"),
    (torch_schedulers.MultiStepLR, {"milestones": [2, 6, 8]}, "after milestones=6 epochs"),
    (torch_schedulers.LinearLR, {"total_iters": 7}, "ends after total_iters=7"),
    (torch_schedulers.LinearLR, {"end_factor": 0, "total_iters": 2}, "lowers the rate to 0 after total_iters=2"),
    (torch_schedulers.ConstantLR, {"total_iters": 7}, "ends after total_iters=7"),
    (torch_schedulers.PolynomialLR, {"total_iters": 2}, "lowers the rate to 0 after total_iters=2"),
    (torch_schedulers.CosineAnnealingWarmRestarts, {"T_0": 7}, "ends after T_0=7"),
    (torch_schedulers.CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "cycle_momentum": False}, "step_size_up=2000 epochs"),
    (torch_schedulers.ExponentialLR, {"gamma": 0.001}, "almost to 0 by the middle of the run"),
    (torch_schedulers.ReduceLROnPlateau, {"patience": 4}, "patience=4 epochs without improvement"),
    (OwnSchedule, {"total_steps": 60}, "ends after total_steps=60 epochs"),
    (OwnSchedule, {"total_steps": 3}, "set scheduler.scheduler.total_steps=6"),
    (OwnEpochs, {"max_epochs": 60}, "ends after max_epochs=60 epochs"),
    (SWALR, {"swa_lr": 0.1}, "reaches swa_lr after anneal_epochs=10 epochs, but this run has 6 epochs"),
    (OwnSchedule, {"total_steps": 6, "warmup_steps": 8}, "warms up for warmup_steps=8 epochs"),
    (torch_schedulers.LambdaLR, {"lr_lambda": partial(decay, total_steps=60)}, "ends after total_steps=60 epochs"),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "keywords"), FITTING)
def test_schedule_that_fits_the_run_is_not_reported(factory, keywords):
    assert not list(find_misfits(make(factory, **keywords), EPOCHS))


@pytest.mark.parametrize(("factory", "keywords", "message"), MISFITS)
def test_schedule_that_does_not_fit_the_run_is_reported_in_one_line(factory, keywords, message):
    (line,) = find_misfits(make(factory, **keywords), EPOCHS)
    assert message in line
    assert "set scheduler.scheduler." in line
    assert "\n" not in line


def test_other_unit_is_suggested():
    too_long = next(find_misfits(make(torch_schedulers.CosineAnnealingLR, T_max=60), EPOCHS))
    assert too_long.endswith("or scheduler.interval=step if it counts steps")
    too_short = next(find_misfits(make(torch_schedulers.CosineAnnealingLR, T_max=6), STEPS))
    assert too_short.endswith("or scheduler.interval=epoch if it counts epochs")
    (fast,) = find_misfits(make(torch_schedulers.StepLR, step_size=3), STEPS)
    assert fast.endswith("higher, or scheduler.interval=epoch")


def test_epochs_of_a_schedule_count_steps_unless_it_knows_the_steps_per_epoch():
    (line,) = find_misfits(make(OwnEpochs, max_epochs=6), STEPS)
    assert "ends after max_epochs=6 steps, but this run has 60 steps: set scheduler.scheduler.max_epochs=60" in line
    assert not list(find_misfits(make(OwnEpochsOfSteps, max_epochs=6, steps_per_epoch=10), STEPS))
    (line,) = find_misfits(make(OwnEpochsOfSteps, max_epochs=3, steps_per_epoch=10), STEPS)
    assert "max_epochs=3 epochs of 10 steps, but this run has 60 steps: set scheduler.scheduler.max_epochs=6" in line


def test_one_cycle_that_ends_before_the_run_is_refused():
    with pytest.raises(LabError, match="ends after total_steps=5 epochs, but this run has 6 epochs"):
        list(find_misfits(make(torch_schedulers.OneCycleLR, max_lr=1.0, total_steps=5), EPOCHS))


def test_parts_of_a_sequence_are_reported():
    parts = [partial(torch_schedulers.ConstantLR, total_iters=2), partial(torch_schedulers.StepLR, step_size=4)]
    sequence = partial(make, torch_schedulers.SequentialLR, schedulers=parts)
    (line,) = find_misfits(sequence(milestones=[2]), EPOCHS)
    assert "but its part of the run has 4 epochs: set scheduler.scheduler.schedulers[1].step_size below 4" in line
    (line,) = find_misfits(sequence(milestones=[6]), EPOCHS)
    assert "StepLR starts after 6 epochs, but this run has 6 epochs: set scheduler.scheduler.milestones below 6" in line


class OwnMetricSchedule:
    """A scheduler that monitors the metric and is not a subclass of torch's."""

    def __init__(self, optimizer, mode="min"):
        self.optimizer, self.mode, self.metrics = optimizer, mode, []

    def step(self, metric):
        self.metrics.append(float(metric))

    def state_dict(self):
        return {"metrics": self.metrics}

    def load_state_dict(self, state):
        self.metrics = state["metrics"]


def test_schedulers_whose_step_takes_a_metric_monitor_it():
    assert monitors_metric(make(OwnMetricSchedule))
    assert monitors_metric(make(OwnPlateau))
    assert not monitors_metric(make(torch_schedulers.CosineAnnealingWarmRestarts, T_0=2))


QUICK = ("model=mlp", "model.hidden=[4]", "data=diabetes", "callbacks=none", "logger=none")
COSINE = "scheduler.scheduler={_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true}"


def test_cosine_schedule_by_epoch_ends_with_the_run(train):
    experiment, _ = train(*QUICK, COSINE, "trainer.max_epochs=3")
    assert experiment.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_misfit_is_logged_before_training(train, caplog):
    train(*QUICK, "scheduler=step", "trainer.max_epochs=2")
    assert "scheduler: StepLR lowers the rate after step_size=10 epochs, but this run has 2 epochs" in caplog.text


def test_schedule_that_would_fail_is_refused_before_files_are_written(build):
    experiment = build(*QUICK, "scheduler=one_cycle", "+scheduler.scheduler.total_steps=3", "trainer.max_epochs=2")
    with pytest.raises(LabError, match="scheduler: OneCycleLR ends after"):
        lab.run(experiment)
    assert not experiment.folder.config.exists()


def test_own_scheduler_gets_the_metric_once_per_validation(build):
    experiment = build(*QUICK, "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2")
    experiment.learner.scheduler = OwnMetricSchedule
    lab.run(experiment)
    assert len(experiment.trainer.lr_scheduler_configs[0].scheduler.metrics) == 2


def test_own_scheduler_gets_no_metric_in_epochs_without_validation(build):
    between = ("trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=7", "data.batch_size=100")
    experiment = build(*QUICK, "trainer.max_epochs=6", *between)  # 4 batches: validated in epochs 2, 4 and 6
    experiment.learner.scheduler = OwnMetricSchedule
    lab.run(experiment)
    assert len(experiment.trainer.lr_scheduler_configs[0].scheduler.metrics) == 3


def test_lists_of_a_schedule_are_lists_in_checkpoints(train):
    parts = "{_target_: torch.optim.lr_scheduler.LinearLR, _partial_: true, total_iters: 1}"
    sequence = f"_target_: torch.optim.lr_scheduler.SequentialLR, schedulers: [{parts}, {parts}], milestones: [1]"
    chosen = f"scheduler.scheduler={{{sequence}, _partial_: true}}"
    experiment, _ = train("model=mlp", "data=diabetes", "logger=none", chosen, "trainer.max_epochs=2")
    state = torch.load(experiment.folder.last, weights_only=True)["lr_schedulers"][0]
    assert type(state["_milestones"]) is list


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scheduler.interval=step", "set scheduler.interval=epoch"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches=0 leaves validation out"),
    ],
)
def test_plateau_without_values_of_its_metric_is_refused(build, override, message):
    with pytest.raises(LabError, match=message):
        build(*QUICK, "scheduler=plateau", override)
