"""Tournaments and searches: nothing that tests has a part in what is chosen, and it is packaged."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from numpy.typing import NDArray

from batteryops.errors import SettingsError
from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import evaluate_protocol
from batteryops.features.views import get_view, matrix
from batteryops.lifecycle.decisions import (
    STACK,
    Decision,
    always,
    deciding_bounds,
    deciding_fit,
    fewer_folds,
    searching,
    stacking,
)
from batteryops.lifecycle.evaluation import task_of
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.prediction import predict_file
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.registration import Registered, register
from batteryops.lifecycle.sources import open_source
from batteryops.lifecycle.tournament import TUNED, decision_of, run_tournament
from batteryops.lifecycle.training import Choice, train
from batteryops.models.algorithms import Matrix, Predict, get_algorithm
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.search import Budget
from batteryops.settings import Settings, load_settings

VIEW = get_view("discharge_summary")
Floats = NDArray[np.float64]


@pytest.fixture
def settings(tmp_path: Path, quick_config: Path) -> Settings:
    """A tournament of two, in three folds."""
    config: dict[str, Any] = yaml.safe_load(quick_config.read_text())
    config["tournament"] = {
        "entrants": ["ridge", "xgboost"],
        "folds": 3,
        "inner_folds": 2,
        "combined": 2,
    }
    file = tmp_path / "production.yaml"
    file.write_text(yaml.safe_dump(config))
    return load_settings(file, home=tmp_path / "home")


@pytest.fixture
def prepared(settings: Settings, fleet_file: Path) -> Prepared:
    return prepare(open_source(str(fleet_file), settings), VIEW, settings)


def entered(settings: Settings, *entrants: str) -> Settings:
    rules = settings.tournament.model_copy(update={"entrants": entrants})
    return settings.model_copy(update={"tournament": rules})


def registered(
    prepared: Prepared, settings: Settings, choice: Choice, out: Path | None = None
) -> Registered:
    return register(
        train(prepared, settings, Silent(), choice), settings, out=out, progress=Silent()
    )


def test_a_tournament_ranks_its_entrants_and_the_stack_by_error(
    prepared: Prepared, settings: Settings
) -> None:
    found = run_tournament(prepared.table, VIEW, settings, Silent())

    errors = [result.metrics.mae_ah for result in found.results.values()]
    assert set(found.results) == {"ridge", "xgboost", STACK}
    assert errors == sorted(errors)
    assert found.winner == next(iter(found.results))
    assert sum(found.stack.weights) == pytest.approx(1.0)
    document = found.to_json()
    assert document["winner"] == found.winner
    assert document["entrants"]["ridge"]["family"] == "linear"
    assert document["search"] is None


def test_an_entrant_that_does_not_exist_is_refused(prepared: Prepared, settings: Settings) -> None:
    asked = entered(settings, "ridge", "oracle")

    with pytest.raises(SettingsError, match="there is no algorithm 'oracle'; expected one of"):
        run_tournament(prepared.table, VIEW, asked, Silent())


def test_no_fit_of_a_stack_answers_for_a_group_that_it_saw(settings: Settings) -> None:
    """The first feature is the number of the asset: whoever is asked compares it with its own."""
    table = pl.DataFrame(
        {
            "asset_id": [f"EV-{asset:04}" for asset in range(6) for _ in range(10)],
            "op_index": [cycle for _ in range(6) for cycle in range(10)],
            **{
                name: [float(asset) for asset in range(6) for _ in range(10)] for name in VIEW.names
            },
            "capacity_ah": [2.0 - 0.01 * row % 7 for row in range(60)],
        }
    )
    fits = []

    def spy(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        seen = set(features[:, 0].tolist())
        fits.append(seen)
        assert {f"EV-{int(asset):04}" for asset in seen} == set(owners.assets)

        def predict(rows: Matrix) -> Floats:
            assert not seen & set(rows[:, 0].tolist())
            return np.full(len(rows), labels.mean() + len(fits) * 1e-3)

        return predict

    entrants = {
        name: always(Decision(spy, ChosenAlgorithm(name=name))) for name in ("first", "second")
    }
    decide = stacking(entrants, folds=2, top=2)
    result = evaluate_protocol(
        table,
        VIEW.names,
        "unseen_assets",
        deciding_fit(decide),
        settings=fewer_folds(settings, calibration=True).evaluation,
        nominal_ah=2.0,
        seed=1,
        fit_bounds=deciding_bounds(decide, VIEW, fewer_folds(settings, calibration=True)),
    )

    assert result.n_test == 60
    # in each of 3 folds 2 entrants in 2 inner folds decide, once; then up to 2 members are fitted
    # for the answer and for 3 folds that calibrate
    assert 3 * (2 * 2 + 1 + 3) <= len(fits) <= 3 * (2 * 2 + 2 + 2 * 3)


def test_a_stack_that_wins_is_packaged_with_its_table_and_was_chosen_anew_in_every_fold(
    prepared: Prepared, settings: Settings, fleet_file: Path, tmp_path: Path
) -> None:
    done = registered(prepared, settings, Choice(tournament=True), tmp_path / "package")

    trained, package = done.trained, load_model(str(tmp_path / "package"), settings).package
    assert trained.tournament is not None
    assert trained.tournament.winner == STACK
    chosen = package.manifest.algorithm
    assert chosen == trained.algorithm
    assert chosen.name == STACK
    assert set(chosen.shares) == {"ridge", "xgboost"}
    assert sum(chosen.shares.values()) == pytest.approx(1.0)
    # what is told of it was measured with folds that decide for themselves
    measured = trained.results["unseen_assets"]
    ranked = trained.tournament.results[STACK].metrics.mae_ah
    assert measured.metrics.mae_ah == pytest.approx(ranked, abs=1e-12)
    assert len(measured.folds) == 3
    assert measured.coverage is not None
    assert trained.notes[0].startswith("stack: members and shares are chosen anew in every fold")
    # and the package answers as what was fitted
    features = matrix(VIEW, prepared.table)
    assert trained.facts["onnx_max_difference_ah"] <= 1e-5
    np.testing.assert_allclose(
        package.predict_batch(features), trained.model(features), rtol=0, atol=1e-5
    )
    answers = predict_file(fleet_file, str(tmp_path / "package"), settings)
    assert answers.table.height >= prepared.table.height
    # and says how it came to be
    assert package.document("tournament")["entrants"].keys() == {"ridge", "xgboost", STACK}
    report = package.read("report.html").decode()
    assert str(chosen) in report
    assert '<td class="w">ridge</td><td class="w">linear</td>' in report
    logged = open_registry(settings).version(1).metrics
    assert logged["tournament.ridge.mae_ah"] == pytest.approx(
        trained.tournament.results["ridge"].metrics.mae_ah
    )


def test_a_single_algorithm_that_wins_is_evaluated_like_any_other(
    prepared: Prepared, settings: Settings
) -> None:
    asked = entered(settings, "ridge", "nearest_neighbours")

    trained = train(prepared, asked, Silent(), Choice(tournament=True))

    assert trained.tournament is not None
    assert trained.tournament.winner == "ridge"
    assert trained.algorithm == ChosenAlgorithm(name="ridge")
    assert not trained.notes


def test_another_algorithm_than_xgboost_is_trained_by_name(
    prepared: Prepared, settings: Settings
) -> None:
    trained = train(prepared, settings, Silent(), Choice("elastic_net"))

    assert trained.algorithm == ChosenAlgorithm(name="elastic_net")
    assert trained.tournament is None
    assert not trained.notes
    assert trained.results.keys() == {"random", "later_cycles", "unseen_assets", "unseen_schedules"}
    assert trained.facts["onnx_max_difference_ah"] <= 1e-5
    with pytest.raises(SettingsError, match="there is no algorithm 'oracle'"):
        train(prepared, settings, Silent(), Choice("oracle"))


def test_every_fold_searches_for_itself_and_all_rows_once_more(
    prepared: Prepared, settings: Settings
) -> None:
    trained = train(prepared, settings, Silent(), Choice("ridge", search_s=1.5))

    found = trained.found
    assert found is not None
    assert found.mae_ah <= found.default_mae_ah
    assert trained.algorithm.values == ({"ridge": found.values} if found.values else {})
    assert len(trained.results["unseen_assets"].folds) == 3
    assert trained.notes[0].startswith("ridge: values are searched anew in every fold")
    assert count_studies(settings) == 3 + 1 + 1 + 1  # folds, random, later_cycles, all rows


def count_studies(settings: Settings) -> int:
    with sqlite3.connect(settings.predictions_url.removeprefix("sqlite:///")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM studies").fetchone()
    return int(count)


def test_a_searched_xgboost_enters_the_tournament_beside_the_configured_one(
    prepared: Prepared, settings: Settings
) -> None:
    found = run_tournament(prepared.table, VIEW, settings, Silent(), search_s=2.0)

    assert set(found.results) == {"ridge", "xgboost", TUNED, STACK}
    assert found.found is not None
    assert found.to_json()["search"]["trials"] == found.found.trials
    assert found.family(TUNED) == found.family("xgboost") == "boosting"


def test_what_has_nothing_to_search_for_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="battery_process has no values to search for"):
        searching("battery_process", task_of(VIEW, settings), Budget(1.0, "sqlite://", 2))


def test_a_decision_is_made_once_for_the_same_rows() -> None:
    calls: list[int] = []

    def mean_fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        assert len(features) == len(owners)
        return lambda rows: np.full(len(rows), labels.mean())

    def counted(features: Matrix, labels: Floats, owners: Owners) -> Decision:
        calls.append(len(features))
        assert len(labels) == len(owners)
        return Decision(mean_fit, ChosenAlgorithm(name="mean"))

    names = np.array(["a", "a", "b", "b"], dtype=object)
    rows = np.zeros((4, 7), np.float32), np.arange(4.0), Owners(names, names)
    decide = stacking({"mean": counted}, folds=2, top=1)

    assert decide(*rows) is decide(*rows)
    assert calls == [4]
    assert decide(*rows).algorithm.shares == {"mean": 1.0}


def test_a_stack_is_fitted_again_with_its_shares_and_searched_values(settings: Settings) -> None:
    task = task_of(VIEW, settings)
    values = {"n_estimators": 5, "max_depth": 2}
    chosen = ChosenAlgorithm(
        name="stack", shares={"ridge": 0.25, TUNED: 0.75}, values={TUNED: values}
    )
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, len(task.names))).astype(np.float32)
    labels = rows[:, 0].astype(np.float64) + 2.0
    assets = np.repeat(np.array(list("abcd"), dtype=object), 10)
    data = (rows, labels, Owners(assets, assets))

    decision = decision_of(chosen, task)

    assert decision.algorithm == chosen
    ridge, boosted = (
        get_algorithm(name).make(task, given)(*data)(rows)
        for name, given in (("ridge", {}), ("xgboost", values))
    )
    assert decision.fit(*data)(rows) == pytest.approx(0.25 * ridge + 0.75 * boosted, abs=1e-9)
