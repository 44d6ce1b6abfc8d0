"""The benchmarks' own machinery; nothing here looks at how long anything takes."""

import json

import pytest

from tests.bench import __main__ as command
from tests.bench.harness import Budget, Case, Contestant, Report


@pytest.fixture
def case():
    """Return a maker of cases with two contestants, ours with this budget."""

    def make(budget):
        contestants = [Contestant(name, lambda: list, 2) for name in ("ours", "theirs")]
        return Case("task", contestants, "theirs", 5, budget)

    return make


@pytest.mark.parametrize("unit", [Budget.ratio, Budget.microseconds])
def test_budget(case, unit):
    """A budget is asked of our row alone: no median exceeds infinity, each one exceeds nothing."""
    report = Report(short=True)
    report.measure(case(unit(float("inf"))))
    report.measure(case(unit(0)))
    report.measure(case(None))
    assert [row.met for row in report.rows] == [True, None, False, None, None, None]
    assert [row.task for row in report.missed] == ["task"]


def test_interleaved():
    """Every contestant runs once in each round, and each one begins a round in its turn."""
    order = []
    contestants = [Contestant(name, lambda name=name: lambda: order.append(name)) for name in "ab"]
    Report(short=False).measure(Case("task", contestants, "a", 3))
    assert "".join(order) == "abbaabba"


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--check"], 1)])
def test_command(case, tmp_path, monkeypatch, capsys, arguments, status):
    """A missed budget is in the table and the file, and fails only where that is asked for."""

    class Part:
        run = staticmethod(lambda report: report.measure(case(Budget.ratio(0))))

    monkeypatch.setattr(command.importlib, "import_module", lambda _: Part)
    output = tmp_path / "build" / "bench.json"
    chosen = ["--short", "--part", "core", "--output", str(output), *arguments]
    assert command.main(chosen) == status
    assert "over budget: task, 0×" in capsys.readouterr().out
    row = json.loads(output.read_text())["parts"]["core"]["rows"][0]
    assert (row["met"], row["budget"]) == (
        False,
        {"limit": 0, "unit": "ratio", "at_least": False},
    )
    assert (row["unit"], set(row["value"])) == ("µs", {"low", "median", "high"})
