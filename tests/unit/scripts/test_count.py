"""The source tree keeps the limits of scripts/count.py."""

import pytest
from count import Count, counts, main, mutable_state


def test_the_source_tree_is_within_the_limits():
    assert not [str(count) for count in counts() if not count.holds]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        ("def f():\n    global A\n    A = 1", ["A"]),
        ("def f():\n    B['x'] = 1", ["B"]),
        ("def f():\n    B['x'].append(1)", ["B"]),
        ("def f():\n    del B['x']", ["B"]),
        ("class C:\n    async def f(self):\n        B.update(x=1)", ["B"]),
        ("def f():\n    C.attribute = 1", ["C"]),
        ("def f(B):\n    B['x'] = 1", []),
        ("def f():\n    B = {}\n    B['x'] = 1", []),
        ("def f():\n    return B['x'], A, B.get('y')", []),
        ("def f(self):\n    self.x = 1", []),
    ],
)
def test_module_level_names_that_functions_change_are_found(function, names):
    assert mutable_state(f"A = 0\nB: dict = {{}}\nC = object()\n\n{function}\n") == names


def test_an_exceeded_limit_is_shown_and_sets_the_exit_code(capsys, monkeypatch):
    broken = [Count("lines", 30_000, 25_000), Count("median lines of a file", 80, 100, at_least=True)]
    monkeypatch.setattr("count.counts", lambda: broken)
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 1
    assert capsys.readouterr().out.count("<-- not kept") == 2
    assert Count("lines", 25_000, 25_000).holds
