"""Text of docs/lessons.md: a section for each lesson, with its preset, tables and explanation."""

from collections.abc import Sequence

from losslab.analysis.compare import Group
from losslab.analysis.compare.tables import metric_rows
from losslab.io.tables import markdown_table
from pages.experiments import Records, Result, summarize_conditions
from pages.lessons.lesson import Claim, Lesson, Panel

_HEAD = """\
# Lessons: what a loss changes, each in one command

Each lesson is a preset: a question, a command that anyone can repeat in some minutes on two CPU cores, and a result
that `tests/unit/scripts/test_lessons.py` asserts of the numbers below, and of smaller runs of its own. The data are
small and need no download; what is shown is an example of an effect, not its size elsewhere. Presets that judge the
last epoch, so that nothing is chosen by validation, keep no checkpoints: their runs are there to be compared.

{contents}

How to read the tables: n is the number of seeds, and a seed decides the initial weights, the order of the batches,
the faults put into the training data, and how the data are drawn or split. A value is the mean over the seeds ± half
of its 95 % interval (Student's t). All groups of a table saw the same seeds, so differences are taken seed by seed, and
their intervals are corrected for the number of differences in the table (Holm): *better* and *worse* mean that such an
interval leaves out 0; *not distinguishable* does not say that there is no difference. Where values differ many times,
means are geometric, and multiples take the place of differences. What is measured are the weights of the last epoch,
against true labels and values. The learning rate is the same for all losses of a table.

`python scripts/pages lessons [NAME ...]` runs the presets and renews this page, its figures and its tables. The runs:
{conditions}; {minutes} minutes in all, two at a time.
"""


def text(lessons: Sequence[Lesson], results: Sequence[Result], records: Records) -> str:
    """The content of the page, with the lessons that have results."""
    shown = [lesson for lesson in lessons if lesson.name in records]
    contents = "\n".join(f"- [{lesson.title}](#{lesson.name})" for lesson in shown)
    head = _HEAD.format(contents=contents, **summarize_conditions([records[lesson.name] for lesson in shown]))
    return "\n".join([head, *(_section(lesson, lesson.groups(results)) for lesson in shown)])


def _section(lesson: Lesson, groups: Sequence[Group]) -> str:
    preset = lesson.preset
    parts = [
        f'<a id="{lesson.name}"></a>\n\n## {lesson.title}',
        f"**Question:** {preset.question}",
        f"```bash\n{preset.command}\n```",
        f"**Expected:** {preset.expected} ({preset.cost})",
        f"![{lesson.finding}](lessons/{lesson.name}.png)",
        *(_panel(panel, groups) for panel in lesson.panels),
        f"**What one sees.** {lesson.observation}",
        f"**Why.** {lesson.explanation}",
        f"**Try.** {lesson.suggestions}",
    ]
    return "\n\n".join(parts) + "\n"


def _panel(panel: Panel, groups: Sequence[Group]) -> str:
    within = f" (`{panel.within}`)" if panel.within else ""
    tables = [markdown_table(metric_rows(comparison), left=(0, 4)) for comparison in panel.compare(groups)]
    claims = "; ".join(_claim(claim, panel) for claim in panel.claims if claim.verdict != "baseline")
    return "\n\n".join([f"*{panel.title}{within}*", *tables, f"Asserted: {claims}."])


def _claim(claim: Claim, panel: Panel) -> str:
    than = "from" if claim.verdict == "not distinguishable" else "than"
    return f"`{claim.group}` is {claim.verdict} {than} `{panel.baseline}` in {claim.metric}"
