"""The second half of the page: what a loss's gradient says about it."""

from statistics import fmean

from campaigns.campaign import Result

from choosings import confident
from choosings.gradients import Initial
from choosings.rows import CLIPPING, RATES
from choosings.table import runs_of, table

_TESTS = "../tests/unit/scripts/test_choosing.py"

_CROSS_ENTROPY = f"""\
## Loss and gradient

A network never sees the value of its loss, only the gradient. What a loss is good for can be read off it.

### Cross-entropy: p − y

For logits z, p = softmax(z) and y the target's probabilities, ∂CE/∂z = p − y; for one logit, p = σ(z) and y 0 or 1,
∂BCE/∂z is p − y again ([tested]({_TESTS})). Nothing multiplies it: an example is felt in proportion to how
wrong it is, and a confidently wrong one with nearly the most there is, 1.

### Squared error on probabilities: nothing to learn from a confident mistake

The squared error (p − y)² on p = σ(z) has the gradient 2 (p − y) · p (1 − p). The last factor is the slope of the
sigmoid, and it is as small where the network is sure and wrong as where it is sure and right; a softmax does the same.
The table has the derivative by the right class's logit (among ten classes, the others at 0), or by the one logit of a
yes, at several margins:
"""

_VANISHES = """\

At a margin of −10 the squared error on the sigmoid gives {times} of the gradient that cross-entropy gives
([tested](../tests/unit/scripts/test_choosing.py)): the network would have to be less wrong before it could learn that it is. The
same fading is what one wants where labels are wrong (`brier`, `mae`, `gce`), because then the confident mistake is the
label's. Squared error on the *logits* (`rescaled_mse`) has no such factor and does not vanish. How gradients fade with
the depth of a network is another matter.

### What clipping does, and does not

`trainer.gradient_clip_val=c` multiplies the gradient of the whole batch by c/‖g‖ where it is longer than c.

- It does not change the direction of a step. Outliers have as large a share of the clipped gradient as of the other.
- It does not move the minimum. With all examples in one batch, descent with clipping ends at the least-squares
  solution, outliers and all; it only takes longer.
- In small batches it does help some: a batch with a large outlier is scaled down, one without is not, so outliers weigh
  less on average.
- It does nothing for gradients that are too short: what vanished above stays vanished.
- What one wants against outliers is a bound on each *example's* gradient, and that is a loss: huber's gradient is the
  residual, clipped to ±δ.

The first two and the last are [tested](../tests/unit/scripts/test_choosing.py). On `linear_synthetic` with a tenth of outliers
(plain SGD; the noise alone is a test MSE of 0.01):"""

_INITIAL = """\
<a id="initial-gradients"></a>

### The first gradient of every loss

![The length of the first gradient of every loss](figures/initial_gradients.png)

The same untrained network, the same examples, and every loss of the catalogue with its defaults
([numbers](figures/initial_gradients.csv), which a [test](../tests/unit/scripts/test_choosing.py) recomputes). {longest}'s first
gradient is {long:.3g} times as long as cross_entropy's, {shortest}'s {short:.2g} times. `distillation` has a teacher
here that knows the examples, `gjs` its random views.

Under plain SGD a step is the learning rate times the gradient, so one rate for all losses gives some of them hundreds
of times longer steps than others: whichever loss wins, it may have won by its scale alone. What can happen, after 20
epochs of plain SGD:
"""

_INSTEAD = """\
What to do instead:

- Give every loss its own learning rate, by the same search with the same budget, judged by a metric and never by the
  loss: `python train.py experiment=tune_lr model=mlp data=digits data.size=8 loss=nce` (20 runs; not part of the runs
  above). Then compare the losses at their best rates, with seeds that the search did not use.
- Adam divides the gradient by its own size, so a constant factor of the loss cancels ([tested]({tests}), without weight
  decay and clipping). It is the cheap half of fairness, which the other runs on this page make do with: losses whose
  gradients change their size *during* training still differ.
"""


def text(results: list[Result], initials: list[Initial]) -> str:
    """The second half of the page."""
    slopes = confident.slopes()
    squared, full = slopes["squared error on the sigmoid"][-1], slopes["bce (sigmoid): p − y"][-1]
    classes = [one for one in initials if one.place == "digits"]
    longest, shortest = classes[0], classes[-1]
    initial = _INITIAL.format(longest=longest.loss, long=longest.ratio, shortest=shortest.loss, short=shortest.ratio)
    parts = [_CROSS_ENTROPY + "\n" + _slopes(slopes), _VANISHES.format(times=_one_in(squared / full))]
    for introduction, row in (("", CLIPPING), (initial, RATES)):
        commands = "\n".join(["```bash", *row.commands, "```"])
        parts.append(f"{introduction}\n{commands}\n\n{table(row, results)}\n")
    return "\n".join([*parts, _first_by_rate(results), _INSTEAD.format(tests=_TESTS)])


def _first_by_rate(results: list[Result]) -> str:
    """Which loss has the highest mean at each learning rate."""
    means: dict[str, dict[str, float]] = {}
    for label, values in runs_of(RATES, results).items():
        rate, loss = (part.partition("=")[2] for part in label.split())
        means.setdefault(rate, {})[loss] = fmean(values["test/accuracy"])
    first = [f"{max(found, key=found.__getitem__)} at {rate}" for rate, found in means.items()]
    return f"The highest mean has {', '.join(first)}.\n"


def _one_in(ratio: float) -> str:
    """A small ratio, as 1 in so many."""
    return f"one part in {float(f'{1 / ratio:.1e}'):,.0f}"


def _slopes(slopes: dict[str, list[float]]) -> str:
    head = " | ".join(f"margin {margin:g}" for margin in confident.MARGINS)
    lines = [f"| loss | {head} |", "| --- |" + " ---: |" * len(confident.MARGINS)]
    lines += [f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} |" for name, values in slopes.items()]
    return "\n".join(lines) + "\n"
