"""Where groups stand in a metric, as rows of words."""

from collections.abc import Sequence

from losslab.comparison.differences import Difference, Standing
from losslab.comparison.grouping import Group
from losslab.comparison.numbers import number
from losslab.direction import direction

NOTHING = "–"


def rows(standing: Standing) -> list[tuple[str, ...]]:
    """A head, and a row for each group: its name, n, mean ± interval, difference from the reference, verdict."""
    head, names = named(standing.groups)
    name = names[standing.groups.index(standing.reference)] if standing.reference is not None else ""
    short = name if len(name) <= 14 else "the baseline" if standing.chosen else "the first"
    against = f"multiple of {short}" if standing.ratios else f"minus {short}"
    table: list[tuple[str, ...]] = [(head, "n", standing.metric, against, "verdict")]
    for name, one in zip(names, standing.groups, strict=True):
        table.append((name, count(one, standing.metric), mean(standing, one), *_against(standing, one)))
    alone = standing.reference is None or len(table) == 2
    return [row[:3] for row in table] if alone else table


def named(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """What groups are called below a common head: "loss" and "focal", where all are called loss=...; else "runs"."""
    keys = {part.partition("=")[0] for one in groups for part in one.name}
    if len(keys) == 1 and all(len(one.name) == 1 for one in groups):
        return keys.pop(), [one.name[0].partition("=")[2] for one in groups]
    return "runs", [one.label for one in groups]


def count(group: Group, metric: str) -> str:
    """How many seeds have a value, and of how many if not all have."""
    found = len(group.values(metric))
    return str(found) if found == group.size else f"{found} of {group.size}"


def mean(standing: Standing, group: Group) -> str:
    """Mean ± interval; of one seed its value alone."""
    found, alone = standing.estimate(group), standing.mean(group)
    return number(found) if found is not None else f"{alone:.4g}" if alone is not None else NOTHING


def leads(metric: str) -> str:
    """What the best mean is."""
    return f"{'highest' if direction(metric) == 'max' else 'lowest'} mean"


def _against(standing: Standing, group: Group) -> tuple[str, str]:
    if group is standing.reference:
        return "", "baseline" if standing.chosen else leads(standing.metric)
    found = standing.difference(group)
    if found is None:
        return NOTHING, "no value"
    if found.mean is None:
        return NOTHING, "no seed in common"
    pairs = f" ({found.pairs} pairs)" if found.alone else ""
    if found.interval is None:
        return f"{f'×{found.mean:.3g}' if standing.ratios else f'{found.mean:+.3g}'}{pairs}", "one seed: no verdict"
    return f"{number(found.interval, signed=True)}{pairs}", found.verdict


def markdown(table: Sequence[Sequence[str]], words: Sequence[int] = (0, 4)) -> str:
    """Rows as a Markdown table, the first of them as its head; columns to the right but for those of words."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in table)
    rule = [":---" if place in words else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def outcome(standing: Standing) -> str:
    """What a metric says of all groups, in one sentence."""
    known = dict(zip(map(id, standing.groups), named(standing.groups)[1], strict=True))
    if standing.reference is None:
        return f"no group has a {standing.metric} to compare with"
    of, name = standing.metric, known[id(standing.reference)]
    first = f"{of} beside {name}: " if standing.chosen else f"{name} has the {leads(of)} {of}; "
    return first + (_verdicts(standing.differences, known) or "there is nothing to compare it with")


def _verdicts(differences: Sequence[Difference], known: dict[int, str]) -> str:
    said: dict[str, list[str]] = {}
    for one in differences:
        said.setdefault(one.verdict or "without a verdict", []).append(known[id(one.group)])
    order = ("better", "worse", "not distinguishable", "equal", "without a verdict")
    return "; ".join(f"{_listed(said[word])} {_are(said[word])} {word}" for word in order if word in said)


def _listed(names: Sequence[str]) -> str:
    if len(names) > 5:
        return f"{len(names)} others"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
