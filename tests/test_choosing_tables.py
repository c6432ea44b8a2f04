"""How docs/choosing.md makes means, intervals and verdicts of runs."""

import sys

import choosing as command
import pytest
import torch
from choosings import measures, table
from choosings.campaign import Result, label_of
from choosings.row import Row, Trial


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


def test_one_variance_for_all_has_the_nll_of_a_gaussian():
    found = measures.gaussian_nll({"train/mse": 4.0, "test/mse": 2.0})
    expected = torch.nn.GaussianNLLLoss(eps=0)(torch.zeros(1), torch.full((1,), 2.0**0.5), torch.full((1,), 4.0))
    assert found == pytest.approx(expected.item())


def test_an_unknown_row_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["choosing.py", "everything"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no row everything" in capsys.readouterr().err
