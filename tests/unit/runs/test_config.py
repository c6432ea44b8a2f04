"""Keys that change no result, and the identity of configurations."""

import folders
import pytest

from losslab.runs.config import RESULT_NEUTRAL_KEYS, changes_no_result, exact_identity, identity


@pytest.mark.parametrize(
    "key", [*sorted(RESULT_NEUTRAL_KEYS), "callbacks.history.title", "callbacks.mine.run_dir", "logger.a.b"]
)
def test_neutral_keys_change_no_result(key):
    assert changes_no_result(key, {"data": "digits"})


@pytest.mark.parametrize("key", ["loss.gamma", "data.batch_size", "data", "seed", "trainer.max_epochs", "nameless"])
def test_other_keys_change_the_result(key):
    assert not changes_no_result(key, {"data": "digits"})


def test_data_dir_changes_the_result_of_image_folder():
    assert not changes_no_result("data.dir", {"data": "image_folder"})


def test_identity_ignores_the_folder_and_keys_that_may_change_on_resume():
    config, moved = folders.config(path="outputs/a"), folders.config(path="outputs/b")
    moved["data"]["workers"] = 3
    assert identity(config) == identity(moved)
    assert exact_identity(config) != exact_identity(moved)
    assert identity(config) != identity(folders.config(seed=1, path="outputs/a"))
