import re

import pytest

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder


def test_a_run_is_called_by_what_it_is_and_no_two_have_one_folder():
    paths = {runs.default_path("linear", "line", "mse", 3) for _ in range(20)}
    assert len(paths) == 20
    assert all(re.fullmatch(r"outputs/linear-line-mse-s3/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{4}", p) for p in paths)


def test_json_is_written_at_once_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        runs.write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize(("content", "message"), [(None, "is no run folder"), ("{", "cannot read")])
def test_what_is_no_run_folder_is_said_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(LabError, match=message):
        RunFolder(tmp_path).read_config()


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    runs.check_free(tmp_path / "new")
    (tmp_path / "new" / "config.json").touch()
    with pytest.raises(LabError, match="already holds a run"):
        runs.check_free(tmp_path / "new")


def test_a_refused_run_leaves_no_folder_but_a_begun_one_stays(tmp_path):
    refused = tmp_path / "name" / "stamp"
    (refused / ".hydra").mkdir(parents=True)
    (refused / "train.log").touch()
    runs.discard(refused)
    assert not refused.parent.exists()
    begun = tmp_path / "name" / "stamp"
    begun.mkdir(parents=True)
    (begun / "config.json").touch()
    runs.discard(begun)
    assert begun.exists()
