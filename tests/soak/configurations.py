"""Any configuration: fifty in each case, of whatever groups and values, train or are refused in one line."""

from pathlib import Path

from soak import drawn
from soak.record import Case, Found

_SEED = 0
_EACH = 50


def cases(count: int) -> list[Case]:
    """Fifty configurations in each."""
    return [Case("configurations", str(start)) for start in range(0, count, _EACH)]


def run(case: Case, _: Path) -> Found:
    """Try them in this process → those of which anything else became."""
    found = list(drawn.campaign(_SEED, int(case.name), _EACH))
    failures = [ascii(f"{' '.join(each.overrides)}: {each.line}")[:500] for each in found if each.happened == "failed"]
    return Found(len(found), failures)
