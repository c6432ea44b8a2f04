"""Simulated studies whose true differences are known: how often `losslab study` is wrong."""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from soak.record import Case, CaseResult
from soak.simulated_study import Finding, Scenario, simulate

_LEVEL = 0.05
_FACTOR = 1.5
"""How far the median of predicted to actual numbers of seeds may be from 1."""
_DETECTABLE = 0.88
"""The difference that a study of two losses finds in 80 % of the cases, in standard deviations of the differences."""


@dataclass(frozen=True)
class Promise:
    """What is promised of a scenario."""

    scenario: Scenario
    contained: tuple[float, float] = (0.94, 0.96)
    """Between which limits the share of the intervals is that contain the true difference."""
    holds: bool = True
    """Whether studies are rarely wrong; otherwise the scenario only shows what happens beyond the promise."""

    def failures(self, found: Mapping[str, float]) -> Iterator[str]:
        """Yield a line for each promise that the numbers of `measure` break."""
        if self.scenario.unpaid:
            if found["false_difference"] <= 2 * _LEVEL:
                yield f"without correction, only {found['false_difference']:.1%} of the studies are wrong"
            return
        for kind in ("false_difference", "false_equivalence") if self.holds else ():
            if found[kind] > _LEVEL:
                yield f"a {kind.replace('_', ' ')} in {found[kind]:.1%} of the studies"
        if self.holds and not self.contained[0] <= found["contained"] <= self.contained[1]:
            yield f"{found['contained']:.1%} of the intervals contain the true difference"
        if "ratio" in found and not 1 / _FACTOR <= found["ratio"] <= _FACTOR:
            yield f"the predicted number of seeds is {found['ratio']:.2f} times the actual one (median)"


_WIDER = (0.94, 1.0)
"""For intervals that contain the true difference more often than 95 %, for the reasons in docs/reliability.md."""
_THREE, _SEVEN = (0, 0, 0, 0), (0,) * 8
_AT_MARGIN, _SEVEN_AT_MARGIN = (0, 1, -1, 1), (0, 1, -1, 1, -1, 1, -1, 1)
_RATES, _DIVERGING = (-1.1, -0.3, 0.2, 0.9), (0.02, 0.0, 0.1, 0.02)
_ONE_NOISY, _UNEQUAL = (3.0, *[0.3] * 7), (1.0, 0.2, 2.0, 4.0)
_SKEWED, _VERY_SKEWED = ("normal", *["skew -1"] * 3), ("normal", *["skew -2"] * 3)
_QUIET = (0.1, 1.0, 1.0, 1.0)
SCENARIOS = {
    "no difference, 1 pair": Promise(Scenario((0, 0), reference=False)),
    "no difference, 3 pairs": Promise(Scenario(_THREE, reference=False), _WIDER),
    "no difference, 7 pairs": Promise(Scenario(_SEVEN, reference=False), _WIDER),
    "at the margin, 1 pair": Promise(Scenario((0, 1), spread=0.4)),
    "at the margin, 3 pairs": Promise(Scenario(_AT_MARGIN, spread=0.4)),
    "at the margin, 7 pairs": Promise(Scenario(_SEVEN_AT_MARGIN, spread=0.4)),
    "no difference, runs twice as noisy": Promise(Scenario((0, 0), spread=2, follow=True)),
    "the detectable difference": Promise(Scenario((0, 2 * _DETECTABLE), spread=2, follow=True)),
    "half the detectable difference": Promise(Scenario((0, 2 * _DETECTABLE), spread=4, follow=True)),
    "a difference of 0.4 margins": Promise(Scenario((0, 0.4), follow=True)),
    "3 equal, 2 at the margin, 2 different": Promise(Scenario((0, 0, 0, 0, 1, -1, 3, -3), follow=True), _WIDER),
    "heavy tails (t3), no difference": Promise(Scenario(_THREE, noise=("t3",)), _WIDER),
    "heavy tails (t3), at the margin": Promise(Scenario(_AT_MARGIN, noise=("t3",), spread=0.4), _WIDER),
    "all losses skewed (-1), no difference": Promise(Scenario(_THREE, noise=("skew -1",)), _WIDER),
    "all losses skewed (-1), at the margin": Promise(Scenario(_AT_MARGIN, noise=("skew -1",), spread=0.4)),
    "all but the reference skewed (-1), no difference": Promise(Scenario(_THREE, noise=_SKEWED), _WIDER),
    "all but the reference skewed (-1), at the margin": Promise(Scenario((0, -1, -1, -1), noise=_SKEWED, spread=0.4)),
    "360 test examples, no difference": Promise(Scenario(_THREE, examples=360, spread=1.2), _WIDER),
    "360 test examples, at the margin": Promise(Scenario(_AT_MARGIN, examples=360, spread=0.6), _WIDER),
    "10,000 test examples, no difference": Promise(Scenario(_THREE, examples=10_000, spread=0.6), _WIDER),
    "10,000 test examples, at the margin": Promise(Scenario(_AT_MARGIN, examples=10_000, spread=0.3)),
    "nearly constant accuracies, no difference": Promise(Scenario(_THREE, examples=360, spread=0.15), _WIDER),
    "nearly constant accuracies, at the margin": Promise(Scenario(_AT_MARGIN, examples=360, spread=0.15), _WIDER),
    "unequal variances, no difference": Promise(Scenario(_THREE, scales=_UNEQUAL)),
    "unequal variances, at the margin": Promise(Scenario(_AT_MARGIN, scales=_UNEQUAL, spread=0.3)),
    "a noisy reference, no difference": Promise(Scenario(_SEVEN, scales=_ONE_NOISY)),
    "a noisy reference, at the margin": Promise(Scenario(_SEVEN_AT_MARGIN, scales=_ONE_NOISY, spread=0.3), _WIDER),
    "ratios, no difference": Promise(Scenario(_THREE, metric="nll"), _WIDER),
    "ratios, at the margin": Promise(Scenario(_AT_MARGIN, metric="nll", spread=0.4)),
    "other best learning rates, no difference": Promise(
        Scenario(_THREE, rates=_RATES, tuning_spread=0.5, reference=False), _WIDER
    ),
    "other best learning rates, at the margin": Promise(
        Scenario(_AT_MARGIN, rates=_RATES, tuning_spread=0.5, reference=False, spread=0.4)
    ),
    "diverging losses, no difference": Promise(Scenario(_THREE, diverging=_DIVERGING, reference=False), _WIDER),
    "diverging losses, at the margin": Promise(Scenario(_AT_MARGIN, diverging=_DIVERGING, reference=False, spread=0.4)),
    "extended from 10 to 20 to 45 seeds, no difference": Promise(
        Scenario(_THREE, max_seeds=(10, 20, 45), reference=False), _WIDER
    ),
    "extended from 10 to 20 to 45 seeds, at the margin": Promise(
        Scenario(_AT_MARGIN, max_seeds=(10, 20, 45), spread=0.6)
    ),
    "two losses added, no difference": Promise(Scenario(_THREE, max_seeds=(10, 20), late=2, reference=False), _WIDER),
    "two losses added, at the margin": Promise(Scenario(_AT_MARGIN, max_seeds=(10, 20), late=2, spread=0.4)),
    "methods after training, no difference": Promise(Scenario((0, 0, 0), posthoc=(0, 0), metric="nll"), _WIDER),
    "methods after training, at the margin": Promise(
        Scenario((0, 1, -1), posthoc=(1, -1), metric="nll", spread=0.4), _WIDER
    ),
    **{
        f"beyond: tuning with {seeds} seeds, no difference at the best rates": Promise(
            Scenario(_THREE, tuning_spread=1.2, finalist_seeds=seeds, at_best_rates=True, reference=False), holds=False
        )
        for seeds in (3, 10, 30)
    },
    "beyond: differences skewed (-2), no difference": Promise(
        Scenario(_THREE, noise=_VERY_SKEWED, scales=_QUIET), holds=False
    ),
    "beyond: differences skewed (-2), at the margin": Promise(
        Scenario((0, -1, -1, -1), noise=_VERY_SKEWED, scales=_QUIET, spread=0.4), holds=False
    ),
    "control: no correction, no difference": Promise(Scenario(_THREE, unpaid=True)),
}
"""The scenarios by name. In those at the margin, the true differences from the reference are as large as the margin."""


def cases(count: int) -> list[Case]:
    """A number of studies of each scenario."""
    return [Case("study", f"{name} / {count}") for name in SCENARIOS]


def run(case: Case, _: Path) -> CaseResult:
    """Simulate the studies of a scenario → the promises that do not hold, and the numbers for the table."""
    name, _, count = case.name.rpartition(" / ")
    promise = SCENARIOS[name]
    logging.getLogger("losslab").setLevel(logging.CRITICAL)  # a study says what it does
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        studies = list(pool.map(partial(simulate, promise.scenario), range(int(count)), chunksize=20))
    found = measure(studies)
    return CaseResult(len(studies), list(promise.failures(found)), found)


def measure(studies: Sequence[Sequence[Sequence[Finding]]]) -> dict[str, float]:
    """Return the share of the studies that are wrong, and so on, with standard errors.

    A study that is extended is wrong if any of its answers is. The intervals are those of its last answer.
    """
    last = [study[-1] for study in studies]
    contained = [np.mean([each.low <= each.truth <= each.high for each in pairs]) for pairs in last if pairs]
    found = {
        **_share("false_difference", [any(map(_is_false_difference, chain(*study))) for study in studies]),
        **_share("false_equivalence", [any(map(_is_false_equivalence, chain(*study))) for study in studies]),
        **_share("contained", contained),
        "decided": float(np.mean([each.verdict != "undecided" for pairs in last for each in pairs])),
    }
    ratios = [each.ratio for pairs in last for each in pairs if each.ratio is not None]
    if ratios:
        quantiles = np.quantile(ratios, [0.1, 0.5, 0.9], method="nearest")
        found |= dict(zip(("ratio_low", "ratio", "ratio_high"), map(float, quantiles), strict=True))
    return found


def _share(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name: float(np.mean(values)), f"{name}_error": float(np.std(values) / math.sqrt(len(values)))}


def _is_false_difference(found: Finding) -> bool:
    return (found.verdict == "better" and found.truth < 1e-9) or (found.verdict == "worse" and found.truth > -1e-9)


def _is_false_equivalence(found: Finding) -> bool:
    # The means of rounded accuracies are not exactly at the margin.
    return found.verdict == "equivalent" and abs(found.truth) > 0.999


def table(results: Mapping[Case, CaseResult]) -> str:
    """Return the numbers of all scenarios as a Markdown table; "" if there are none. ± is the standard error."""
    lines = []
    for case, result in results.items():
        if case.part == "study" and result.measured:
            found = result.measured
            name, _, count = case.name.rpartition(" / ")
            cells = [name, f"{int(count):,}"]
            cells += [
                f"{100 * found[key]:.1f} ± {100 * found[f'{key}_error']:.1f}"
                for key in ("false_difference", "false_equivalence", "contained")
            ]
            cells.append(f"{100 * found['decided']:.0f}")
            cells.append("{ratio:.2f} ({ratio_low:.2f} - {ratio_high:.2f})".format(**found) if "ratio" in found else "")
            lines.append("| " + " | ".join(cells) + " |")
    head = (
        "| simulated studies | number | with a false better or worse, % | with a false equivalent, % "
        "| intervals that contain the true difference, % | decided pairs, % | predicted / actual seeds |"
    )
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *lines]) if lines else ""
