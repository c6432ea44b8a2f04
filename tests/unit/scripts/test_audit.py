"""The audit of public losses: its findings, the page docs/audit.md, the terminal output, and losslab's own losses."""

import math
import re
import sys
from pathlib import Path

import audit as command
import pytest
import torch
from audits import libraries
from audits.finding import Evidence, Severity, finding, status
from audits.measure import focal, margins, slope, value_and_gradient
from audits.page import entry, page

from losslab.errors import LabError
from losslab.losses import BCE, MSE, CrossEntropy, Focal, KLDiv

ROOT = Path(__file__).resolve().parents[3]
INSTALLED = [name for name in libraries.LIBRARIES if libraries.version(name)]
FINDINGS = [found for name in INSTALLED for found in libraries.findings(name)]
PAGE = (ROOT / "docs" / "audit.md").read_text()


@finding("somewhere.loss", claim="1", source="here", severity=Severity.WRONG_VALUE, losslab="1")
def refused() -> Evidence:
    """It accepts what it should refuse."""
    message = "a shape that would broadcast\nand more"
    raise ValueError(message)


@pytest.mark.parametrize("found", FINDINGS, ids=lambda found: found.name)
def test_a_finding_holds_on_the_installed_version(found):
    evidence = found.check()
    assert evidence.holds, (
        f"{found.function} no longer has this fault ({found.fault} Now: {evidence.seen}): change scripts/audits, and "
        f"write docs/audit.md with `python scripts/audit.py --markdown`"
    )
    assert re.search(r"\d|nan|inf", evidence.seen), "the evidence contains a number"


def test_names_of_findings_are_unique():
    names = [found.name for found in FINDINGS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("found", FINDINGS, ids=lambda found: found.name)
def test_the_page_has_every_finding(found):
    assert entry(found) in PAGE, "python scripts/audit.py --markdown > docs/audit.md"


@pytest.mark.skipif(len(INSTALLED) < len(libraries.LIBRARIES), reason="some audited libraries are not installed")
def test_the_page_has_no_other_finding():
    assert PAGE.count("\n### ") == len(FINDINGS)


def test_a_finding_does_not_hold_if_the_library_refuses_the_input():
    evidence = refused.check()
    assert not evidence.holds
    assert evidence.seen == "the call now raises ValueError: a shape that would broadcast"
    assert status(evidence) == "fixed in the installed version"
    shown = page([libraries.Audit("somewhere", "2.0", [(refused, evidence)])])
    assert "0 of 1 findings hold" in shown
    assert "**Fixed in the installed version.**" in shown


def test_a_library_that_is_not_installed_is_skipped_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(libraries.LIBRARIES, "absent", ("no-such-distribution", ("no_such_module",)))
    monkeypatch.setattr(sys, "argv", ["audit.py", "absent"])
    command.main()
    assert capsys.readouterr().out.startswith("absent is not installed: skipped\n")


def test_a_library_that_cannot_be_imported_is_skipped(monkeypatch):
    monkeypatch.setitem(libraries.LIBRARIES, "broken", ("torch", ("no_such_module",)))
    assert "cannot be imported: skipped" in libraries.audit("broken").skipped


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_the_evidence_within_its_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "argv", ["audit.py", "torchvision"])
    command.main()
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "torchvision.ops.sigmoid_focal_loss" in out
    assert "nan" in out


def test_an_unknown_library_is_an_error_that_names_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit.py", "tensorflow"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no library tensorflow" in capsys.readouterr().err


def test_the_references_are_exact():
    assert focal(20.0, 0.5) == pytest.approx(math.exp(-30), rel=1e-6, abs=0)
    torch.testing.assert_close(slope(lambda x: x.pow(3), [1.0, 2.0]), torch.tensor([3.0, 12.0]).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_our_focal_loss_is_accurate_and_has_finite_gradients(gamma, dtype):
    loss = Focal(gamma)
    for margin in (5.0, 6.0):
        value, _ = value_and_gradient(lambda z: loss(z, torch.tensor([0])), margins([margin]), dtype)
        assert float(value) == pytest.approx(focal(margin, gamma), rel=1e-4, abs=0)
    for margin in (17.0, 90.0):
        _, gradient = value_and_gradient(lambda z: loss(z, torch.tensor([0])), margins([margin]), dtype)
        assert gradient.isfinite().all()


def test_our_bce_has_a_gradient_for_confident_mistakes():
    loss = BCE()
    for logits, label in (([[17.0]], 0.0), ([[-30.0]], 1.0)):
        value, gradient = value_and_gradient(lambda z, t=label: loss(z, torch.full_like(z, t)), logits)
        assert float(value) == pytest.approx(abs(logits[0][0]))
        assert float(gradient.abs()) == pytest.approx(1)


def test_our_losses_refuse_input_that_others_accept():
    column, row = torch.ones(3, 1), torch.ones(3)
    for loss in (MSE(), BCE()):
        with pytest.raises(LabError):
            loss(column, row)
    with pytest.raises(LabError):
        CrossEntropy(label_smoothing=-0.5)


def test_our_losses_are_finite_in_half_precision_and_at_zero_probabilities():
    many, target = torch.zeros(70_000, 10, dtype=torch.float16), torch.zeros(70_000, dtype=torch.int64)
    assert float(CrossEntropy()(many, target)) == pytest.approx(math.log(10))
    assert KLDiv()(torch.zeros(1, 3), torch.tensor([[0.5, 0.5, 0.0]])).isfinite()
