"""Parametrised tests of which a sample is quick and the rest is slow: `make test` runs the sample, `make check` all."""

from collections.abc import Iterable
from typing import Any

import pytest


def sample(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: those in `quick` as they are, the others marked slow.

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
