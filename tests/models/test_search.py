"""The search for values: better than the defaults or none, resumed, and blind to other rows."""

from pathlib import Path

import numpy as np
import optuna
import pytest

from batteryops.errors import DataError, RecordsError
from batteryops.evaluation.owners import Owners
from batteryops.models.algorithms import (
    Algorithm,
    Floats,
    GroupedFit,
    Matrix,
    Predict,
    Task,
    Values,
)
from batteryops.models.search import Budget, Rows, search

TASK = Task("a_view", ("f",), (0,), {}, seed=1)


def rows_of(size: int) -> Rows:
    """So many rows with the label 2.0; ten of two groups, then others."""
    groups = np.array([f"cell {row // 5 if row < 10 else 2 + row // 20}" for row in range(size)])
    owners = Owners(groups.astype(object), groups.astype(object))
    return Rows(np.zeros((size, 1), np.float32), np.full(size, 2.0), owners)


ROWS = rows_of(40)


def constant(default: float) -> Algorithm:
    """Answers its only value, whatever it is asked; 2.0 is right."""

    def make(task: Task, values: Values) -> GroupedFit:
        assert task is TASK

        def fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
            assert len(features) == len(labels) == len(owners)
            answer = float(values.get("answer", default))
            return lambda rows: np.full(len(rows), answer)

        return fit

    return Algorithm(
        "constant", "mean", "", make, lambda trial: {"answer": trial.suggest_float("answer", 0, 4)}
    )


def budget(folder: Path, seconds: float = 1.0) -> Budget:
    return Budget(seconds, f"sqlite:///{folder}/searches.db", folds=4)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose database has its tables: making them can take longer than the budgets here."""
    search(constant(0.0), TASK, rows_of(10), budget(tmp_path, 0.0))
    return tmp_path


def test_a_search_finds_what_is_better_than_the_default(place: Path) -> None:
    told: list[tuple[int, float]] = []

    found = search(constant(0.0), TASK, ROWS, budget(place), told=lambda *what: told.append(what))

    assert found.default_mae_ah == pytest.approx(2.0)
    assert found.mae_ah == pytest.approx(abs(found.values["answer"] - 2.0))
    assert found.mae_ah < 2.0
    assert found.to_json()["trials"] == found.trials
    assert [number for number, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][1] == found.mae_ah


def test_where_nothing_is_better_the_defaults_stay(place: Path) -> None:
    found = search(constant(2.0), TASK, ROWS, budget(place))

    assert found.values == {}
    assert found.mae_ah == found.default_mae_ah == pytest.approx(0.0)


def test_a_search_that_was_stopped_goes_on_where_it_was(place: Path) -> None:
    first = search(constant(0.0), TASK, ROWS, budget(place))
    url = f"sqlite:///{place}/searches.db"
    name = optuna.get_all_study_names(url)[-1]
    killed = optuna.load_study(study_name=name, storage=url)
    killed.ask()  # a trial of a process that never came back

    again = search(constant(0.0), TASK, ROWS, budget(place))

    assert again.trials + again.pruned > first.trials + first.pruned
    assert again.mae_ah <= first.mae_ah
    states = [trial.state.name for trial in killed.get_trials()]
    assert "RUNNING" not in states
    assert "FAIL" in states


def test_other_rows_are_another_search(place: Path) -> None:
    for size in (40, 30, 40):
        search(constant(0.0), TASK, rows_of(size), budget(place, 0.0))

    assert len(optuna.get_all_study_names(f"sqlite:///{place}/searches.db")) == 1 + 2


def test_one_group_cannot_be_held_out(tmp_path: Path) -> None:
    one = np.array(["cell"] * 40, dtype=object)
    rows = Rows(ROWS.features, ROWS.labels, Owners(one, one))

    with pytest.raises(DataError, match="all 40 rows are of one group"):
        search(constant(0.0), TASK, rows, budget(tmp_path))


def test_a_database_out_of_reach_is_said_without_its_address(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="database of searches is out of reach") as refused:
        search(constant(0.0), TASK, ROWS, budget(tmp_path / "absent"))

    assert "absent" not in str(refused.value)
