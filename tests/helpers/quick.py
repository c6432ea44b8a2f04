"""Samples of parametrised tests: `make test` runs only the sample, `make check` runs all."""

from collections.abc import Iterable
from typing import Any

import pytest


def sample(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Return parameters for `pytest.mark.parametrize`: all cases, of which those not in `quick` are marked as slow.

    Raises:
        ValueError: a quick case is not among the cases.
    """
    cases = list(cases)
    missing = [case for case in quick if case not in cases]
    if missing:
        raise ValueError(f"no such cases: {missing}")
    return [
        case if case in quick else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
