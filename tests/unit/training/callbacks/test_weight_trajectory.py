import csv

import numpy as np
import pytest
import torch

from losslab.training.callbacks.weight_trajectory import WeightTrajectory


def rows(experiment):
    with experiment.folder.weight_trajectory.open() as file:
        header, *table = list(csv.reader(file))
    return header, np.array(table, dtype=float)


def final_weights(experiment):
    state = torch.load(experiment.folder.last, weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith("network.")]).double()


def test_first_row_is_the_untrained_network_and_last_row_the_checkpoint(build, train):
    untrained = [weight.item() for weight in build().learner.network.parameters()]
    experiment, _ = train("trainer.max_epochs=30", "logger=none")
    header, table = rows(experiment)
    assert table[0, 2:].astype("float32").tolist() == untrained
    assert len(np.unique(table[:, 2])) == 31
    assert header == ["epoch", "step", "weight.0.0", "bias.0"]
    assert table[:, 0].tolist() == list(range(31))
    assert np.array_equal(table[-1, 2:].astype("float32"), final_weights(experiment).numpy().astype("float32"))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_weights_of_every_precision_are_written_exactly(train, precision):
    data = ("data=linear_synthetic", "data.n=40")
    experiment, _ = train("trainer.max_epochs=3", "logger=none", f"trainer.precision={precision}", *data)
    _, table = rows(experiment)
    assert table[:, 1].tolist() == [0, 2, 4, 6]
    exact = "float64" if precision == "64-true" else "float32"
    assert np.array_equal(table[-1, 2:].astype(exact), final_weights(experiment).numpy().astype(exact))


def test_long_run_keeps_evenly_spaced_epochs_and_the_last(train):
    experiment, _ = train("trainer.max_epochs=45", "logger=none", "+callbacks.path.rows=10")
    _, table = rows(experiment)
    assert table[:, 0].tolist() == [0, 8, 16, 24, 32, 40, 45]
    assert np.array_equal(table[-1, 2:].astype("float32"), final_weights(experiment).numpy().astype("float32"))


def test_weights_of_a_large_network_are_not_recorded(train):
    experiment, _ = train("model=mlp", "trainer.max_epochs=1", "logger=none")
    assert not experiment.folder.weight_trajectory.exists()


def test_failed_run_writes_the_epochs_so_far(build, monkeypatch):
    from losslab.training import experiment as lab

    experiment = build("trainer.max_epochs=30", "logger=none")
    keep, epochs = WeightTrajectory._record, []

    def interrupted(self, epoch, step):
        keep(self, epoch, step)
        epochs.append(epoch)
        if epoch == 4:
            raise RuntimeError

    monkeypatch.setattr(WeightTrajectory, "_record", interrupted)
    with pytest.raises(RuntimeError):
        lab.run(experiment)
    assert rows(experiment)[1][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_state_written_by_an_earlier_version_is_read():
    callback = WeightTrajectory("unused")
    weights = [torch.arange(4.0).view(2, 1, 2), torch.tensor([[9.0], [8.0]])]  # a tensor for each parameter
    callback.load_state_dict({"every": 2, "places": [(0, 0), (2, 6)], "weights": weights})
    state = callback.state_dict()
    assert state["places"] == [(0, 0), (2, 6)]
    assert state["weights"][0].tolist() == [[0, 1, 9], [2, 3, 8]]
