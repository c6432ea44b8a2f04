"""The benchmarks of training on images run, on few and small batches."""

import logging

import pytest
from benchmarks import losslab_training
from benchmarks.peers import images_pil, images_raw
from benchmarks.timing import Job

JOB = Job("cifar_cnn", "bf16-mixed", images=16, batch_size=4, warm_up=1, steps=2)


@pytest.fixture(autouse=True)
def _same_log_level():
    logger = logging.getLogger("losslab")
    level = logger.level
    yield
    logger.setLevel(level)  # a benchmark logs errors only


@pytest.mark.parametrize("program", [images_raw, images_pil])
def test_the_rate_of_a_plain_loop_is_measured(program):
    assert program.rate(JOB) > 0


def test_the_rate_is_measured_without_callbacks():
    assert losslab_training.bare_rate(JOB) > 0


def test_the_callbacks_take_a_share_of_a_step():
    shares = losslab_training.callback_shares(JOB, "trainer.log_every_n_steps=1")
    assert set(shares) == {"FiniteGuard", "GradientNorms"}
    assert all(0 < share < 1 for share in shares.values())
