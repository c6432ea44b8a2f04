"""Speed of training on images, compared with PIL and with a plain loop on the same tensors; cost of callbacks."""

import os
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from rich.progress import track

from benchmarks import losslab_training
from benchmarks.page import section, table, target
from benchmarks.peers import images_pil, images_raw
from benchmarks.timing import Job, Numbers, in_own_processes, in_turn, ratio
from losslab.data.machine import keep_freed_memory
from losslab.data.transforms import Augment

PIL, RAW, OURS = "PIL, a DataLoader and a plain loop", "plain loop, losslab's tensors", "python train.py"
BARE = f"{OURS} callbacks=none logger=none"
NOISE = (
    "The images are random bytes with the shape of CIFAR-10, so nothing is downloaded. Crop, flip and normalisation\n"
    "are those of CIFAR-10. Set-up and the first steps are not timed. `python train.py` includes metrics, the guard,\n"
    "gradient norms, history and TensorBoard. The plain loop has the same tensors, augmentation and memory settings,\n"
    "and nothing else."
)
BETWEEN = (
    "What `python train.py` does between the steps takes the same time whatever the size of a batch. The row with\n"
    "`callbacks=none logger=none` shows how much of it is Lightning's own loop."
)


def cnn(rounds: int) -> str:
    """Time cifar_cnn on the CPU."""
    single, half = Job("cifar_cnn", "32-true"), Job("cifar_cnn", "bf16-mixed")
    pil, numbers = _rates(single, half, rounds, "cnn", (0, 1, 2))
    ratios = {
        "at least 2.5 times the rate of PIL, in bf16-mixed": (f"{OURS}, bf16-mixed", pil, 2.5, ""),
        "at least 1.7 times the rate of PIL, in float32": (
            f"{OURS}, float32", pil, 1.7, "most of a step is the network, and workers load the images beside it"
        ),
        "at least 0.98 times the rate of the plain loop, in bf16-mixed": (
            f"{OURS}, bf16-mixed", f"{RAW}, bf16-mixed", 0.98,
            "callbacks, logger and the loop of Lightning, see the last row",
        ),
    }  # fmt: skip
    targets = [
        target(text, ratio(numbers[ours], numbers[peer]), at_least.__le__, reason)
        for text, (ours, peer, at_least, reason) in ratios.items()
    ]
    title = f"cifar_cnn on the CPU: training images per second, batches of {half.batch_size}"
    return section(
        title,
        rounds,
        table(numbers, ("program", "images per second", "ratio to PIL"), pil, ".0f"),
        "\n".join(targets),
        BETWEEN,
        NOISE,
    )


def gpu(rounds: int) -> str:
    """Time cifar_cnn and resnet18 on a GPU."""
    title = "Training images per second on a GPU"
    if not torch.cuda.is_available():
        return f"## {title}\n\nNot measured: run `python scripts/benchmark.py gpu --write` on a machine with a GPU."
    cores = os.cpu_count() or 1
    tables = []
    for model in ("cifar_cnn", "resnet18"):
        single = Job(model, "32-true", "cuda", images=50_000, warm_up=30, steps=300)
        pil, numbers = _rates(single, replace(single, precision="bf16-mixed"), rounds, model, (cores // 2, cores))
        tables.append(f"### {model}\n\n" + table(numbers, ("program", "images per second", "ratio to PIL"), pil, ".0f"))
    return section(title, rounds, *tables, NOISE)


def augment(rounds: int) -> str:
    """Time crop, flip and normalisation on one core, for batches and for single images."""
    count = 1024
    images = images_raw.examples(count).inputs
    dataset = images_pil.Images(count)
    batched, normalise = Augment(crop=2, flip=True), images_raw.normalise()
    random = torch.Generator().manual_seed(0)

    def one_by_one() -> float:
        return _per_second(lambda: [dataset[index] for index in range(count)], count)

    def at_once() -> float:
        return _per_second(
            lambda: [normalise(batched(part, batched.draw(len(part), 32, 32, random))) for part in images.split(128)],
            count,
        )

    keep_freed_memory()  # for both programs, as in a run
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = "torchvision, image by image", "batches of 128"
    numbers = in_turn({names[0]: one_by_one, names[1]: at_once}, rounds, "augment")
    torch.set_num_threads(threads)
    return section(
        "Random crop, flip and normalisation: images per second on one core",
        rounds,
        table(numbers, ("program", "images per second", "ratio to torchvision"), names[0], ".0f"),
        target(
            "at least 25 times the rate of torchvision",
            ratio(numbers[names[1]], numbers[names[0]]),
            lambda value: value >= 25,
        ),
        "Both use one core of the same machine, in turn.",
    )


def callbacks(rounds: int) -> str:
    """Time the non-finite guard and the gradient norms, as percentages of a training step of cifar_cnn."""
    job = Job("cifar_cnn", "bf16-mixed", warm_up=5, steps=60)
    numbers: Numbers = {name: [] for name in _TARGETS}
    for number in track(range(rounds + 1), "callbacks: rounds (the first warms up)"):
        for every in (50, 1):
            guard, norms = losslab_training.callback_shares(job, f"trainer.log_every_n_steps={every}").values()
            if number:
                numbers[_EVERY[every]].append(100 * norms)
                numbers["guard, every step"] += [100 * guard] if every == 1 else []
    rows = [
        f"| {name} | {median(values):.2f} ({min(values):.2f} - {max(values):.2f}) | {_TARGETS[name]:.0f} |"
        for name, values in numbers.items()
    ]
    return section(
        "Cost of the guard and of gradient norms in a step of cifar_cnn (CPU, bf16-mixed, batches of 128)",
        rounds,
        "\n".join(
            ["| callback | % of a step, median (minimum - maximum) | target: at most |", "| --- | --- | --- |", *rows]
        ),
    )


_EVERY = {50: "gradient norms, every 50 steps", 1: "gradient norms, every step"}
_TARGETS = {"guard, every step": 1.0, _EVERY[50]: 3.0, _EVERY[1]: 3.0}


def _per_second(work: Callable[[], object], count: int) -> float:
    start = perf_counter()
    work()
    return count / (perf_counter() - start)


def _rates(single: Job, half: Job, rounds: int, what: str, workers: tuple[int, ...]) -> tuple[str, Numbers]:
    """Measure the rates of all programs; the PIL program has the number of workers that was fastest in one round.

    Returns:
        Name of the PIL program, and the rates by program.
    """
    peers = {f"{PIL}, {number} workers, float32": replace(single, workers=number) for number in workers}
    tried = in_own_processes({name: (images_pil.rate, job) for name, job in peers.items()}, 1, f"{what}: workers")
    pil = max(tried, key=lambda name: tried[name][0])
    programs = {pil: (images_pil.rate, peers[pil])}
    if single.device == "cuda":
        programs[pil.replace("float32", "bf16-mixed")] = (images_pil.rate, replace(peers[pil], precision="bf16-mixed"))
    for name, job in (("float32", single), ("bf16-mixed", half)):
        programs[f"{RAW}, {name}"] = (images_raw.rate, job)
        programs[f"{OURS}, {name}"] = (losslab_training.rate, job)
    programs[f"{BARE}, bf16-mixed"] = (losslab_training.bare_rate, half)
    return pil, in_own_processes(programs, rounds, what)
