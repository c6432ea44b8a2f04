"""docs/lessons.md: a pure function of the lessons, their presets and what the runs gave."""

from pathlib import Path
from typing import Any

from campaigns import campaign
from campaigns.campaign import Result

from curriculum import figure, sight
from curriculum.lesson import Claim, Lesson, Panel
from curriculum.lessons import LESSONS
from curriculum.standings import groups_of, standings
from losslab.analysis.compare import Group
from losslab.analysis.compare.tables import metric_rows
from losslab.io.tables import markdown_table

_HEAD = """\
# Lessons: what a loss changes, each in one command

Each lesson is a preset: a question, a command that anyone can repeat in some minutes on two CPU cores, and a result
that `tests/unit/scripts/test_lessons.py` asserts of the numbers below, and of smaller runs of its own. The data are small and need
no download; what is shown is an example of an effect, not its size elsewhere. Presets that judge the
last epoch, so that nothing is chosen by validation, keep no checkpoints: their runs are there to be compared.

{contents}

How to read the tables: n is the number of seeds, and a seed decides the initial weights, the order of the batches,
the faults put into the training data, and how the data are drawn or split. A value is the mean over the seeds ± half
of its 95 % interval (Student's t). All groups of a table saw the same seeds, so differences are taken seed by seed, and
their intervals are corrected for the number of differences in the table (Holm): *better* and *worse* mean that such an
interval leaves out 0; *not distinguishable* does not say that there is no difference. Where values differ many times,
means are geometric, and multiples take the place of differences. What is measured are the weights of the last epoch,
against true labels and values. The learning rate is the same for all losses of a table.

`python scripts/lessons.py [NAME ...]` runs the presets and renews this page, its figures and its tables. The runs:
{conditions}; {minutes} minutes in all, two at a time.
"""


def text(results: list[Result], facts: dict[str, Any]) -> str:
    """The page."""
    shown = [lesson for lesson in LESSONS if lesson.name in facts]
    contents = "\n".join(f"- [{lesson.title}](#{lesson.name})" for lesson in shown)
    conditions = "; ".join(dict.fromkeys(facts[lesson.name]["conditions"] for lesson in shown))
    minutes = f"{sum(facts[lesson.name]['seconds'] for lesson in shown) / 60:.0f}"
    head = _HEAD.format(contents=contents, conditions=conditions, minutes=minutes)
    return "\n".join([head, *(_section(lesson, groups_of(lesson, results)) for lesson in shown)])


def _section(lesson: Lesson, groups: list[Group]) -> str:
    preset = lesson.preset
    parts = [
        f'<a id="{lesson.name}"></a>\n\n## {lesson.title}',
        f"**Question:** {preset.question}",
        f"```bash\n{preset.command}\n```",
        f"**Expected:** {preset.expected} ({preset.cost})",
        f"![{lesson.finding}](lessons/{lesson.name}.png)",
        *(_panel(panel, groups) for panel in lesson.panels),
        f"**What one sees.** {lesson.sees}",
        f"**Why.** {lesson.why}",
        f"**Try.** {lesson.tries}",
    ]
    return "\n\n".join(parts) + "\n"


def _panel(panel: Panel, groups: list[Group]) -> str:
    within = f" (`{panel.within}`)" if panel.within else ""
    places = standings(panel, groups)
    asserted = "; ".join(_said(claim, panel) for claim in panel.claims if claim.verdict != "baseline")
    parts = [f"*{panel.title}{within}*"]
    for place in places:
        parts += [markdown_table(metric_rows(place), (0, 4))]
    return "\n\n".join([*parts, f"Asserted: {asserted}."])


def _said(claim: Claim, panel: Panel) -> str:
    beside = "from" if claim.verdict == "not distinguishable" else "than"
    return f"`{claim.group}` is {claim.verdict} {beside} `{panel.baseline}` in {claim.metric}"


def write(docs: Path) -> None:
    """Write the page and the figures from the numbers that are there."""
    folder = docs / "lessons"
    results, facts = campaign.read(folder)
    for lesson in (one for one in LESSONS if one.name in facts):
        drawn = figure.draw(lesson, groups_of(lesson, results), sight.read(folder / f"{lesson.name}.csv"))
        drawn.savefig(folder / f"{lesson.name}.png", metadata={"Software": None})
    (docs / "lessons.md").write_text(text(results, facts))


def stale(docs: Path) -> list[str]:
    """What of the page does not fit its presets or the numbers that it was made of."""
    results, facts = campaign.read(docs / "lessons")
    found = campaign.stale(LESSONS, facts)
    if (docs / "lessons.md").read_text() != text(results, facts):
        found.append("lessons.md")
    return found
