import csv
import errno

import pytest
import torch
from lightning import Callback

from losslab.errors import LabError, NonFiniteError
from losslab.io import atomic
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.callbacks import checkpoint, checkpoint_state


def history(experiment):
    with experiment.folder.history.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("every_seconds", [0, 30])
def test_best_checkpoint_has_the_best_metric_and_last_checkpoint_the_newest_state(train, every_seconds):
    experiment, results = train(
        "model=mlp", "data=diabetes", "optimizer.lr=0.03", "trainer.max_epochs=20",
        f"callbacks.checkpoints.every_seconds={every_seconds}",
    )  # fmt: skip
    scores = [float(row["val/mse"]) for row in history(experiment)]
    best = min(range(20), key=scores.__getitem__)
    assert best < 19, "the last epoch is the best one: this test shows nothing"
    assert results["best_epoch"] == best + 1
    assert results["val/mse"] == scores[best]
    loaded = torch.load(experiment.folder.best, weights_only=True)
    assert loaded["epoch"] == best
    assert torch.load(experiment.folder.last, weights_only=True)["global_step"] == experiment.trainer.global_step
    weights.load(experiment.learner, experiment.folder.best)
    assert lab.evaluate(experiment, "val")["val/mse"] == pytest.approx(scores[best], rel=1e-6)


def test_metrics_on_the_test_split_are_those_of_the_best_epoch(train):
    experiment, results = train("model=mlp", "data=diabetes", "optimizer.lr=0.03", "trainer.max_epochs=20")
    weights.load(experiment.learner, experiment.folder.last)
    last = lab.evaluate(experiment, "test")["test/mse"]
    weights.load(experiment.learner, experiment.folder.best)
    assert lab.evaluate(experiment, "test")["test/mse"] == results["test/mse"] != last


def test_weights_pth_is_the_state_dict_of_the_network(train):
    experiment, _ = train("trainer.max_epochs=20")
    plain = torch.nn.Linear(1, 1)
    plain.load_state_dict(torch.load(experiment.folder.weights, weights_only=True))
    state = torch.load(experiment.folder.best, weights_only=True)["state_dict"]
    assert torch.equal(plain.weight, state["network.weight"])


def test_short_epochs_do_not_each_write_a_checkpoint(train, monkeypatch):
    written = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *a, **k: (written.append(a[1]), save(*a, **k)))
    train("trainer.max_epochs=100", "trainer.check_val_every_n_epoch=1")
    assert len(written) <= 4


def test_non_finite_weights_are_not_saved(build):
    experiment = build("trainer.max_epochs=1", "~callbacks.finite_guard", "examine=false")
    experiment.learner.network.weight.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=r"network\.weight contains NaN"):
        lab.run(experiment)
    assert not experiment.folder.last.exists()


def test_ckpt_path_loads_the_weights_of_a_run(train):
    first, _ = train("trainer.max_epochs=50")
    second, _ = train(f"ckpt_path={first.folder.best}", "train=false")
    assert torch.equal(second.learner.network.weight, first.learner.network.weight)
    third, _ = train(f"ckpt_path={first.folder.weights}", "train=false")
    assert torch.equal(third.learner.network.weight, first.learner.network.weight)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no checkpoint at"), (b"garbage", "cannot load"), ("other", "cannot load")]
)
def test_unusable_checkpoint_is_a_one_line_error(build, tmp_path, content, message):
    path = tmp_path / "some.ckpt"
    if content == "other":
        torch.save({"state_dict": {"network.other": torch.ones(3)}}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=message) as error:
        weights.load(build().learner, path)
    assert "\n" not in str(error.value)


def test_moving_average_is_saved(train):
    plain, _ = train("trainer.max_epochs=10")
    averaged, results = train("trainer.max_epochs=10", "callbacks=ema", "callbacks.ema.decay=0.9")
    kept = torch.load(averaged.folder.weights, weights_only=True)["weight"]
    assert not torch.equal(kept, torch.load(plain.folder.weights, weights_only=True)["weight"])
    weights.load(averaged.learner, averaged.folder.weights)
    assert lab.evaluate(averaged, "val")["val/mse"] == pytest.approx(results["val/mse"])


def test_best_state_is_written_during_training_even_if_no_later_epoch_is_better(build):
    experiment = build(
        "callbacks.checkpoints.every_seconds=0.05", "trainer.max_epochs=150", "trainer.check_val_every_n_epoch=1"
    )

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, _):
            if trainer.current_epoch == 2:
                trainer.optimizers[0].param_groups[0]["lr"] = 0.0  # no epoch after the third is better
            if trainer.current_epoch == 149:
                assert experiment.folder.best.exists()
                assert torch.load(experiment.folder.best, weights_only=True)["epoch"] <= 3

    experiment.trainer.callbacks.append(Watch())
    lab.run(experiment)


def sizes(state):
    """Count the values in a state, and the bytes of its tensors."""
    if isinstance(state, torch.Tensor):
        return 1, state.untyped_storage().nbytes()
    children = [*state.values()] if isinstance(state, dict) else state if isinstance(state, list | tuple) else []
    below = [sizes(child) for child in children]
    return 1 + sum(count for count, _ in below), sum(size for _, size in below)


def test_what_is_kept_of_a_better_epoch_does_not_grow_with_the_number_of_epochs(train, monkeypatch):
    kept, copy = [], checkpoint_state.frozen_copy
    monkeypatch.setattr(checkpoint_state, "frozen_copy", lambda state: (kept.append(copy(state)), kept[-1])[1])
    dynamics = ("callbacks=dynamics", "callbacks.dynamics.draw=false", "callbacks.dynamics.every=1")
    train("trainer.max_epochs=40", "trainer.check_val_every_n_epoch=1", "logger=none", *dynamics)
    _, *better, _ = kept  # the first validation might take long, and the last epoch is kept, too
    assert len(better) == 40, "not every epoch is better than all before: this test shows less than it could"
    assert len({sizes(state) for state in better[3:]}) == 1  # the first epochs add the names of metrics
    written = [checkpoint_state.complete(state) for state in better]
    assert [len(state["callbacks"]["History"]["rows"]) for state in written] == [*range(40)]
    for name in ("History", "Path", "Dynamics"):
        assert sizes(written[30]["callbacks"][name]) > sizes(written[10]["callbacks"][name])


def without_times(state):
    if isinstance(state, dict):
        return {key: without_times(value) for key, value in state.items() if key not in {"times", "spent"}}
    if isinstance(state, list | tuple):
        return [without_times(value) for value in state]
    return (state.dtype, state.tolist()) if isinstance(state, torch.Tensor) else state


def test_best_checkpoint_that_is_written_later_equals_one_that_is_written_at_once(build):
    class Worsen(Callback):
        def on_train_epoch_start(self, trainer, _):
            trainer.optimizers[0].param_groups[0]["maximize"] = trainer.current_epoch >= 8

    states = []
    for seconds in (0, 1000):
        experiment = build(
            "trainer.max_epochs=20", "trainer.check_val_every_n_epoch=1", "logger=none", "callbacks=dynamics",
            "callbacks.dynamics.every=3", "+callbacks.path.rows=12", f"callbacks.checkpoints.every_seconds={seconds}",
        )  # fmt: skip
        experiment.trainer.callbacks.append(Worsen())
        lab.run(experiment)
        states.append(torch.load(experiment.folder.best, weights_only=True))
    at_once, later = map(without_times, states)
    assert later == at_once
    assert later["epoch"] == 7
    assert [row["epoch"] for row in later["callbacks"]["History"]["rows"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [epoch for epoch, _ in later["callbacks"]["Path"]["places"]][-1] == 7  # it was thinned after epoch 12
    assert [look["epoch"] for look in later["callbacks"]["Dynamics"]["looks"]] == [0, 3, 6]


def test_weights_of_the_best_epoch_are_tested_without_reading_them_again(train, monkeypatch):
    read = []
    monkeypatch.setattr(weights, "_read", read.append)
    train("trainer.max_epochs=20")
    assert read == []


def test_non_finite_optimizer_state_is_not_saved(build):
    experiment = build("data=diabetes", "model=mlp", "trainer.max_epochs=1")

    class Poison(Callback):
        def on_train_batch_end(self, trainer, *_):
            next(iter(trainer.optimizers[0].state.values()))["exp_avg_sq"].fill_(torch.inf)

    experiment.trainer.callbacks.insert(0, Poison())
    name = r"optimizer_states.0.state.0.exp_avg_sq"
    with pytest.raises(NonFiniteError, match=rf"{name} contains NaN or infinite values") as caught:
        lab.run(experiment)
    assert NonFiniteError.is_message(str(caught.value))
    assert not experiment.folder.last.exists()
    assert not experiment.folder.best.exists()


def test_last_checkpoint_contains_the_trained_weights_and_their_average(train):
    plain, _ = train("trainer.max_epochs=10")
    averaged, _ = train("trainer.max_epochs=10", "callbacks=ema", "callbacks.ema.decay=0.9")
    trained = torch.load(plain.folder.last, weights_only=True)["state_dict"]
    kept = torch.load(averaged.folder.last, weights_only=True)["current_model_state"]
    assert torch.equal(kept["network.weight"], trained["network.weight"])


def test_infinite_best_score_of_early_stopping_can_be_saved(train):
    experiment, _ = train("callbacks=early_stopping", "trainer.max_epochs=5", "trainer.check_val_every_n_epoch=10")
    assert experiment.folder.last.exists(), "early stopping still waits for less than infinity"


class Full:
    """A file on a full disk."""

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self):
        pass


def test_write_checkpoint_raises_the_os_error_that_torch_hides(monkeypatch, tmp_path):
    monkeypatch.setattr(atomic, "write_with_checksum", lambda _, content: content(Full()))
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_checkpoint({"weights": torch.ones(1000)}, tmp_path / "last.ckpt")


def test_training_continues_on_a_full_disk_and_its_end_names_the_command_to_resume(build, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    experiment = build("trainer.max_epochs=4", "callbacks.checkpoints.every_seconds=0")
    monkeypatch.setattr(checkpoint, "write_checkpoint", full)
    with pytest.raises(LabError, match=r"No space left on device\): free some space, then run .* resume="):
        lab.run(experiment)
    assert "last.ckpt was not written (No space left on device): training continues, another follows" in caplog.text
    assert len(history(experiment)) == 4
