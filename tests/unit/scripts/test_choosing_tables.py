"""How docs/choosing.md makes means, intervals and verdicts of runs."""

import sys
from math import log

import choosing as command
import pytest
import torch
from campaigns.campaign import Result
from choosings import measures, table
from choosings.results import label_of
from choosings.row import Row, Trial

from losslab.io import atomic


def row(*trials):
    return Row("some", "", "", "", "", "", trials, ("test/mse",), "loss=mse")


def test_a_run_is_called_by_what_differs_in_its_row():
    swept = row(Trial(("model=linear", "loss=huber", "loss.delta=0.1,1.0")), Trial(("model=linear", "loss=mse")))
    assert label_of(swept, ["model=linear", "loss=huber", "loss.delta=0.1", "seed=0"]) == "loss=huber loss.delta=0.1"
    assert label_of(swept, ["model=linear", "loss=mse", "seed=1"]) == "loss=mse"
    kept = row(Trial(("loss=mse",)), Trial(("loss=ldam", "callbacks=deferred_reweighting"), bare=False))
    assert label_of(kept, ["loss=mse", "seed=0", "callbacks=none"]) == "loss=mse"
    assert label_of(kept, ["loss=ldam", "callbacks=deferred_reweighting"]) == "loss=ldam callbacks=deferred_reweighting"


def test_a_table_says_what_the_runs_gave():
    values = {"loss=mse": (1.0, 2.0, 3.0), "loss=l1": (1.5, 2.6, 3.4)}
    results = [
        Result("some", label, seed, "test/mse", value) for label in values for seed, value in enumerate(values[label])
    ]
    shown = table.table(row(Trial(("loss=l1,mse",))), results).splitlines()
    assert shown[2].startswith("| `loss=mse` | 2.0 ± 2.5 |")
    assert shown[3] == "| `loss=l1` | 2.5 ± 2.4 | +0.50 ± 0.25: worse |"


@pytest.mark.parametrize(("loss", "error"), [("mse", 1.0), ("gaussian_nll", 0.0)])
def test_the_error_of_a_deviation_is_0_for_the_law_itself_and_its_spread_for_one_deviation(train, loss, error):
    settings = ("data=linear_synthetic", "data.n=2000", "data.noise=0", "noise=heteroscedastic", "noise.scale=0.02")
    experiment, _ = train(*settings, f"loss={loss}", "trainer.max_epochs=1", "logger=none")
    if loss == "gaussian_nll":  # where σ² is small, softplus(v) is exp(v): v = 2 log σ, which is linear
        head, column = experiment.learner.network, experiment.data.splits["train"].inputs[:, 0]
        with torch.no_grad():
            head.weight[1] = 0
            head.weight[1, 0] = 2 / column.std(correction=0)
            head.bias[1] = 2 * log(0.02) - 2 * column.mean() / column.std(correction=0)
        state = {"state_dict": experiment.learner.state_dict()}
        atomic.write_with_checksum(experiment.folder.last, lambda file: torch.save(state, file))
    found = measures.deviation_error(experiment.folder.path, {"train/mse_given": 0.02**2})
    assert found == pytest.approx(error, abs=0.05)


def test_an_unknown_row_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["choosing.py", "everything"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no row everything" in capsys.readouterr().err
