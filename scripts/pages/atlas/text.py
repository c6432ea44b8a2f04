"""Text of docs/atlas.md."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from pages.atlas.findings import findings
from pages.atlas.studies import Situation, Task
from pages.atlas.table import Atlas, rate_table, verdict_table
from pages.experiments import Records, summarize_conditions
from pages.study import study_table

_HEAD = """\
# Atlas of the losses

All losses that fit a task, in {count} situations: is another loss better than the usual choice? Each situation is one
[study](study.md), which tunes the learning rate of each loss at equal cost, and compares the losses on other seeds.

{findings}

These sentences are checked by code when the page is written. All results are from small networks and small data sets,
which train in seconds. They show what a loss can change, and are no general ranking: [compare](study.md) the losses
that interest you on your own data. [Choosing a loss](choosing.md) says which loss is meant for what, and why.
"""

_HOW = """\
## How to read the tables

- A cell is the difference of a loss from {references}, with its 95 % interval: in points of
  accuracy (with a long tail, of the mean recall of the classes), or as the ratio of the squared errors. Test labels are
  correct, and test targets have none of the noise that is added to the training targets.
- *Better* and *worse* mean that a paired t test over seeds shows a difference, *equivalent* that it shows a difference
  of less than 1 point or 5 %, and *undecided* neither. In each situation, the tests are corrected for the number of
  losses and of looks, so that any verdict of a kind is wrong with a probability of at most 5 %.
- Each loss has seven or more learning rates with three seeds, each a factor of √10 from the next, and then two more
  beside its best. The best three are repeated, with ten seeds in all, and the best of them on the validation data is
  used. All other hyperparameters have the values of `conf/loss`. Adam is the optimizer.
- The intervals are about the losses at these rates. That the tuning may have missed a better rate by chance is not part
  of them; for the reference, it would change a whole column.
- Each run is measured with the weights of its best epoch on the validation data, whose labels and values are correct.
  With wrong labels, this is early stopping at the right epoch, which helps `cross_entropy` and other losses that would
  memorise wrong labels later. Without it, their disadvantage would be larger.
- n is the number of seeds. A loss that is decided gets no more seeds than needed, so compare two losses by their
  differences from the reference, which are taken seed by seed, and not by their means.
- The seed determines initial weights and batches, and also the split or the generated data, so an interval includes
  what other data of the same kind would change.
- Rows such as `cross_entropy + logit adjustment` are fitted to the outputs after training. Temperature scaling never
  changes the predicted class, and has no row.
"""
_CAMPAIGN = (
    "The studies: {conditions}. They took {minutes} minutes on two cores that also ran other jobs. "
    "`python scripts/pages atlas [NAME ...]` runs the studies and writes this page with its figures; `--resume` "
    "continues after an interruption. Each study was run with `trainer=cpu hydra.launcher.n_jobs=2`."
)


def text(tasks: Sequence[Task], records: Records, folder: Path) -> str:
    """Return the content of the page, with the situations that have results."""
    atlases = {task.name: Atlas.read(task, folder) for task in tasks}
    shown = [atlas for atlas in atlases.values() if atlas.rows]
    names = [each.name for atlas in shown for each in atlas.situations]
    references = " or ".join(f"`{atlas.task.reference}`" for atlas in shown)
    lines = "\n".join(_wrap(f"{number}. {line}", "   ") for number, line in enumerate(findings(atlases), 1))
    summary = summarize_conditions([records[name] for name in names])
    missing = [each.title for task in tasks for each in task.situations if each.name not in names]
    parts = [_HEAD.format(count=len(names), findings=lines)]
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.\n")
    parts += [_section(atlas) for atlas in shown]
    parts.append(_HOW.format(references=references))
    parts.append(_wrap(_CAMPAIGN.format(**summary)) + "\n")
    return "\n".join(parts)


def _wrap(paragraph: str, indent: str = "") -> str:
    return fill(paragraph, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _section(atlas: Atlas) -> str:
    task = atlas.task
    out = "; ".join(f"`{name}` {why}" for name, why in task.left_out.items())
    parts = [
        f"## {task.name.capitalize()}",
        _wrap(f"The usual choice is `{task.reference}`. {len(task.losses)} losses are compared. Left out: {out}."),
        "\n".join(_wrap(f"- [{each.title}](#{each.name}): {each.description}.", "  ") for each in atlas.situations),
        f"![The difference of each loss from {task.reference} in each situation](atlas/{task.name}.png)",
        verdict_table(atlas),
        f"### Learning rates: {task.name}",
        _wrap(
            f"The best rate of each loss, divided by that of `{task.reference}`, and in parentheses the width of its "
            "good range: the highest rate divided by the lowest, of the neighbouring rates around the best whose mean "
            "on the validation data is within the margin. *Edge*: the best rate is at an end of the grid."
        ),
        rate_table(atlas),
        *(_details(each, atlas) for each in atlas.situations),
    ]
    return "\n\n".join(parts) + "\n"


def _details(situation: Situation, atlas: Atlas) -> str:
    rows = list(atlas.rows[situation.name].values())
    title = situation.title[:1].upper() + situation.title[1:]
    table = f"<details>\n<summary>{len(rows)} rows</summary>\n\n{study_table(rows)}\n\n</details>"
    command = f"```bash\n{situation.study.command}\n```"
    return f'<a id="{situation.name}"></a>\n\n### {title}\n\n{table}\n\n{command}'
