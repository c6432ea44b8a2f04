from types import SimpleNamespace

import pytest
import torch
from lightning import Callback

from losslab.errors import LabError
from losslab.training import experiment as lab
from losslab.training.callbacks.lookahead import Lookahead

RUN = ("model=mlp", "data=diabetes", "data.batch_size=32", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2")


class Fast(Callback):
    """Records the weights after each step, when earlier callbacks have already changed them."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, _, pl_module, *__):
        self.steps.append(pl_module.network[1].weight.detach().clone())


def run(build, lookahead, *overrides):
    experiment, fast, after = build(*RUN, "logger=none", *overrides), Fast(), Fast()
    start = experiment.learner.network[1].weight.detach().clone()
    experiment.trainer.callbacks[:0] = [fast, lookahead, after]
    lab.run(experiment)
    return experiment, start, fast.steps, after.steps


def test_slow_weights_follow_the_formula(build):
    experiment, slow, fast, after = run(build, Lookahead(every=4, decay=0.8))
    last = len(fast)
    assert last == experiment.trainer.global_step == 20
    for step, (before, then) in enumerate(zip(fast, after, strict=True), start=1):
        if step % 4 == 0 or step == last:
            share = 0.8 * (step / last) ** 3
            slow = share * slow + (1 - share) * before
            torch.testing.assert_close(then, slow)
            assert not torch.equal(then, before)
        else:
            assert torch.equal(then, before)


def test_last_step_saves_the_slow_weights(build):
    experiment, _, fast, after = run(build, Lookahead(every=7))
    assert not torch.equal(fast[-1], after[-1])
    for path in (experiment.folder.best, experiment.folder.last):
        kept = torch.load(path, weights_only=True)["state_dict"]["network.1.weight"]
        assert torch.equal(kept, after[-1])


def test_slow_weights_are_part_of_the_state(build):
    lookahead = Lookahead()
    run(build, lookahead)
    again = Lookahead()
    again.load_state_dict(lookahead.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.slow, lookahead.slow, strict=True))


def test_running_statistics_are_averaged_and_counts_are_not(build):
    lookahead = Lookahead()
    experiment = build(
        "model=airbench", "model.widths=[4,4,4]", "data=digits", "data.size=16", "trainer.max_epochs=1", "logger=none",
        "test=false",
    )  # fmt: skip
    experiment.trainer.callbacks.append(lookahead)
    lab.run(experiment)
    state = experiment.learner.network.state_dict()
    floating = {name: value for name, value in state.items() if value.is_floating_point()}
    assert any("running_var" in name for name in floating)
    assert len(floating) < len(state)
    for slow, value in zip(lookahead.slow, floating.values(), strict=True):
        assert torch.equal(slow, value)


def test_accumulated_batches_are_one_step():
    norm, lookahead = torch.nn.BatchNorm1d(1), Lookahead(every=5, decay=1)
    learner, trainer = SimpleNamespace(network=norm), SimpleNamespace(estimated_stepping_batches=100, global_step=0)
    lookahead.on_train_start(trainer, learner)
    trainer.global_step = 50
    for batch in range(2):  # the second batch belongs to the next step, which is not complete
        norm.running_mean.fill_(1)
        lookahead.on_train_batch_end(trainer, learner, None, None, batch)
        assert lookahead.slow[2].item() == 1 - 0.5**3
    assert norm.running_mean.item() == 1


def test_run_without_an_end_is_an_error(build):
    with pytest.raises(LabError, match="lookahead needs a limited run"):
        run(build, Lookahead(), "trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=1")


@pytest.mark.parametrize("wrong", [{"every": 0}, {"decay": 1.5}])
def test_invalid_arguments_are_an_error(wrong):
    with pytest.raises(LabError, match="lookahead needs every ≥ 1"):
        Lookahead(**wrong)
