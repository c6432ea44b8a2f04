"""Text of docs/lessons.md: a section for each lesson, with its command, tables and explanation."""

from collections.abc import Sequence

from losslab.analysis.compare import Group
from losslab.analysis.compare.tables import metric_rows
from losslab.io.tables import markdown_table
from pages.experiments import Records, Result, summarize_conditions
from pages.lessons.lesson import Claim, Lesson, Panel

_HEAD = """\
# Lessons: what a loss changes, in one command each

Each lesson is a configuration in `conf/experiment/`. It has a question, a command that takes a few minutes on two CPU
cores, and an expected result. `tests/unit/scripts/test_lessons.py` tests the expected result twice: on the recorded
numbers below, and in smaller runs. The data sets are small and need no download. A lesson is an example of an effect;
the size of the effect can be different on other data. Some experiments set `callbacks.checkpoints=null`: they save no
checkpoints and evaluate the last epoch, so nothing is selected on validation data.

{contents}

How to read the tables:

- n is the number of seeds. The seed determines the initial weights, the order of the batches, the corruption of the
  training data, and how the data are generated or split.
- A value is the mean over the seeds ± half the width of its 95 % confidence interval (Student's t).
- All groups of a table have the same seeds, so differences are computed per seed. Their intervals are corrected for the
  number of differences in the table (Holm). *Better* and *worse* mean that the corrected interval excludes 0; *not
  distinguishable* does not prove that there is no difference.
- If the values differ by large factors, the table shows geometric means, and ratios instead of differences.
- All values are measured with the weights of the last epoch, against the true labels and values.
- All losses of a table have the same learning rate.

`python scripts/pages lessons [NAME ...]` runs the experiments and writes this page with its figures. The runs:
{conditions}; {minutes} minutes in total, two at a time.
"""


def text(lessons: Sequence[Lesson], results: Sequence[Result], records: Records) -> str:
    """Return the content of the page, with the lessons that have results."""
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
        f"**Expected result:** {preset.expected} (Cost: {preset.cost})",
        f"![{lesson.finding}](lessons/{lesson.name}.png)",
        *(_panel(panel, groups) for panel in lesson.panels),
        f"**Result.** {lesson.observation}",
        f"**Explanation.** {lesson.explanation}",
        f"**Try next.** {lesson.suggestions}",
    ]
    return "\n\n".join(parts) + "\n"


def _panel(panel: Panel, groups: Sequence[Group]) -> str:
    within = f" (`{panel.within}`)" if panel.within else ""
    tables = [markdown_table(metric_rows(comparison), left=(0, 4)) for comparison in panel.compare(groups)]
    claims = "; ".join(_claim(claim, panel) for claim in panel.claims if claim.verdict != "baseline")
    return "\n\n".join([f"*{panel.title}{within}*", *tables, f"Asserted by the tests: {claims}."])


def _claim(claim: Claim, panel: Panel) -> str:
    than = "from" if claim.verdict == "not distinguishable" else "than"
    return f"`{claim.group}` is {claim.verdict} {than} `{panel.baseline}` in {claim.metric}"
