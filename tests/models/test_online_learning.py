"""Online learning: a batch updates a copy, and the copy serves only where it proves better."""

import json
from dataclasses import replace

import numpy as np
import pytest

from batteryops.errors import DataError
from batteryops.models.acceptance import Errors, Judges, Limits
from batteryops.models.boosting import predict
from batteryops.models.labelled import LabelledRows
from batteryops.models.online_learning import OnlineUpdate, online_learning_update
from models.labelled_fleets import (
    PARAMETERS,
    VIEW,
    fleet,
    new_fleet,
    old_fleet,
    old_model,
    plain_rows,
    unseen_old,
)


def update(
    rows: LabelledRows, judges: Judges | None = None, unseen_ah: float = 0.0
) -> OnlineUpdate:
    return online_learning_update(
        old_model(),
        rows,
        old_fleet(),
        parameters=PARAMETERS,
        seed=1,
        judges=judges,
        unseen_ah=unseen_ah,
    )


def test_a_batch_that_teaches_is_accepted_with_ten_more_trees() -> None:
    judges = Judges(fleet("LFP", vehicles=6, cycles=12, seed=9), unseen_old())
    before = bytes(old_model().save_raw("ubj"))

    found = update(new_fleet(), judges)

    assert found.accepted
    assert found.booster.num_boosted_rounds() == 90
    assert found.candidate is not None
    errors = np.abs(predict(found.booster, judges.new.features) - judges.new.labels)
    assert found.candidate.new_ah == pytest.approx(errors.mean())
    assert not set(found.learned_from) & set(found.judged_by)
    assert bytes(old_model().save_raw("ubj")) == before
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["accepted"]


def test_without_judges_batteries_of_the_batch_and_of_the_past_are_set_aside() -> None:
    honest = float(np.abs(predict(old_model(), unseen_old().features) - unseen_old().labels).mean())

    found = update(new_fleet(), unseen_ah=honest)

    assert found.accepted, found.reason
    assert set(found.judged_by) <= {*new_fleet().assets, *old_fleet().assets}
    assert not set(found.learned_from) & set(found.judged_by)


def test_an_update_that_is_no_gain_leaves_the_current_model() -> None:
    rng = np.random.default_rng(0)
    wrong = replace(new_fleet(), labels=rng.uniform(1.0, 2.0, len(new_fleet())))
    same = Judges(fleet("NMC", vehicles=4, cycles=10, seed=5), unseen_old())

    found = update(wrong, same)

    assert not found.accepted
    assert found.booster is old_model()
    assert "that is no gain of 2 percent" in found.reason


def test_an_update_that_fails_on_the_old_leaves_the_current_model() -> None:
    """The batch contradicts the past: the same cycles with 0.6 Ah less."""
    batch = fleet("NMC", vehicles=8, cycles=30, seed=5)
    less = replace(batch, labels=batch.labels - 0.6)
    judged = replace(unseen_old(), labels=unseen_old().labels - 0.6)

    found = update(less, Judges(judged, unseen_old()))

    assert not found.accepted
    assert found.reason.startswith("it forgets: old MAE")
    assert found.booster is old_model()


def test_labels_of_one_vehicle_keep_the_current_model_and_it_says_why() -> None:
    one = new_fleet()[new_fleet().owners.assets == new_fleet().assets[0]]

    found = update(one)

    assert not found.accepted
    assert found.booster is old_model()
    assert f"labelled rows are of {new_fleet().assets[0]}" in found.reason
    assert found.current is None
    assert found.to_json()["current"] is None


def test_rows_of_another_view_are_refused() -> None:
    with pytest.raises(DataError, match=f"the rows have the features a; .*{VIEW.names[0]}"):
        update(plain_rows([[1.0], [2.0]], [1.0, 2.0]))


def test_a_candidate_that_answers_nan_is_refused() -> None:
    judges = Judges(new_fleet(), unseen_old())
    current = Errors(0.1, 0.1, {"NMC": 0.1})

    def broken(rows: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.full(len(rows), np.nan)  # type: ignore[arg-type] # rows have a length

    candidate = judges.errors(broken)

    looked = judges.look(current, candidate, Limits())
    assert not looked.passed
    assert looked.reason == "it answers NaN or infinity"
    assert candidate.to_json()["new_ah"] is None


def test_one_profile_that_is_forgotten_is_enough_to_refuse() -> None:
    old = plain_rows([[0.0]] * 4, [2.0] * 4, profiles=["cells", "cells", "cells", "packs"])
    judges = Judges(plain_rows([[0.0]], [2.0]), old)
    current = Errors(0.10, 0.04, {"cells": 0.04, "packs": 0.04})

    worse = Errors(0.05, 0.04, {"cells": 0.035, "packs": 0.055})

    looked = judges.look(current, worse, Limits())
    assert not looked.passed
    assert "old packs MAE 0.0400 to 0.0550 Ah, at most 0.0440 allowed" in looked.reason
    assert judges.look(current, worse, Limits(max_loss=0.4)).passed
    # of what a model knows by heart, a rise is compared with its error on what it does not
    lenient = Judges(judges.new, judges.old, unseen_ah=0.15)
    assert lenient.look(current, worse, Limits()).passed


def test_a_model_that_does_not_answer_every_row_is_refused() -> None:
    judges = Judges(new_fleet(), unseen_old())
    with pytest.raises(DataError, match=r"answers \(1,\)"):
        judges.errors(lambda rows: rows[:1, 0].astype(np.float64))
