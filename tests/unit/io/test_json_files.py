"""JSON files are written atomically."""

import json

import pytest

from losslab.io.json_files import write_json


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_nan_and_infinity_become_null(tmp_path):
    write_json(tmp_path / "metrics.json", {"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": None, "b": None, "c": 1.5}
