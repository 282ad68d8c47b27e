"""Quality of what production asks: counts that a plain loop finds too, wherever chunks are cut."""

import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.features.view import Feature
from batteryops.monitoring.production_quality import (
    ProductionQuality,
    QualityCounts,
    Watched,
    repeating_features,
)
from batteryops.monitoring.repeats import Repeats
from batteryops.monitoring.sequences import Sequences
from monitoring.logged import START, answer, cell_of, log

MINUTE = timedelta(minutes=1)
FEATURES = (
    Feature("volts", "V", 0.0, 5.0, "a voltage", "here"),
    Feature("seconds", "s", 0.0, 9000.0, "a time", "here"),
)
WATCHED = Watched(FEATURES, cell_of)
COUNTING = Watched(
    (*FEATURES, Feature("cycles", "1", 0.0, 1e6, "a count", "here")), cell_of, counter="cycles"
)


def frame(answers: Sequence[dict[str, Any]], watched: Watched = WATCHED) -> pl.DataFrame:
    return log(answers, watched.names)


def asked(volts: float | None, seconds: float | None, n: int = 0, **changes: Any) -> dict[str, Any]:  # noqa: ANN401  # any column
    return answer(at=START + n * MINUTE, volts=volts, seconds=seconds, **changes)


def found(*answers: dict[str, Any], watched: Watched = WATCHED) -> ProductionQuality:
    return QualityCounts.scan(watched, [frame(answers, watched)]).quality()


def test_what_is_missing_and_what_is_not_plausible_are_shares_of_the_answers() -> None:
    quality = found(
        asked(3.5, 1000.0),
        asked(None, 1001.0),
        asked(math.nan, 1002.0),
        asked(3600.0, 1003.0),  # millivolts
        asked(math.inf, 9001.0),
    )
    assert quality.missing == {"volts": 0.4, "seconds": 0.0}
    assert quality.out_of_range == {"volts": 0.4, "seconds": 0.2}


def test_shadow_answers_are_no_questions_of_their_own() -> None:
    shadow = asked(3.5, 1000.0, role="challenger", model_version="4", served=False)
    quality = found(asked(3.5, 1000.0), shadow)
    assert (quality.rows, quality.duplicates) == (1, 0.0)


def test_the_same_question_of_the_same_vehicle_is_a_duplicate() -> None:
    quality = found(
        asked(3.5, 1000.0, 0),
        asked(3.5, 1001.0, 1),
        asked(3.5, 1000.0, 2),
        asked(3.5, 1000.0, 3, vehicle="EV-2"),
    )
    assert quality.duplicates == 0.25


def test_missing_values_are_equal_to_each_other_when_questions_are_compared() -> None:
    assert found(asked(None, 1.0), asked(math.nan, 1.0)).duplicates == 0.5


def test_a_value_that_stands_still_while_others_move_is_stuck_from_the_fifth_answer_on() -> None:
    four = [asked(3.5, 1000.0 + n, n) for n in range(4)]
    assert found(*four).stuck == {"volts": 0.0, "seconds": 0.0}
    five = [*four, asked(3.5, 2000.0, 4)]
    assert found(*five).stuck == {"volts": 1.0, "seconds": 0.0}
    moving = [asked(3.0 + n / 10, 1.0 + n, 5 + n) for n in range(5)]
    assert found(*five, *moving).stuck["volts"] == 0.5


def test_the_same_question_again_and_again_is_no_stuck_sensor() -> None:
    assert found(*(asked(3.5, 1000.0, n) for n in range(9))).stuck["volts"] == 0.0


def test_a_missing_value_ends_a_run_and_is_none() -> None:
    values = [3.5, 3.5, 3.5, None, 3.5, 3.5]
    assert found(*(asked(at, float(n), n) for n, at in enumerate(values))).stuck["volts"] == 0.0
    assert found(*(asked(None, float(n), n) for n in range(9))).stuck["volts"] == 0.0


def test_a_run_does_not_go_on_from_one_vehicle_to_the_next_nor_from_singles_to_a_batch() -> None:
    for other in ({"vehicle": "EV-2"}, {"prediction_id": "b:0"}):
        both = [asked(3.5, float(n), n, **(other if n >= 3 else {})) for n in range(6)]
        assert found(*both).stuck["volts"] == 0.0


def test_a_capacity_above_both_intervals_is_a_life_that_goes_back() -> None:
    def life(*bounds: tuple[float, float]) -> ProductionQuality:
        return found(
            *(
                asked(3.5, float(n), n, capacity_low_ah=low, capacity_high_ah=high)
                for n, (low, high) in enumerate(bounds)
            )
        )

    assert life((1.7, 1.9), (1.6, 1.8), (1.75, 1.95)).cycle_count_back == 0  # as far as is known
    swapped = life((1.4, 1.5), (1.39, 1.49), (1.8, 2.0), (1.79, 1.99), (1.4, 1.5), (1.51, 1.6))
    assert (swapped.cycle_count_back, swapped.cycle_count_back_by) == (2, "capacity")


def test_answers_without_an_interval_say_nothing_of_the_state_of_life() -> None:
    none = {"capacity_low_ah": None, "capacity_high_ah": None}
    assert found(asked(3.5, 1.0), asked(3.5, 2.0, 1, **none)).cycle_count_back == 0


def test_a_feature_that_counts_cycles_must_not_fall() -> None:
    counts = [1.0, 2.0, 2.0, 1.0, None, 5.0, 4.0]
    quality = found(
        *(asked(3.5, float(n), n, cycles=at) for n, at in enumerate(counts)), watched=COUNTING
    )
    assert (quality.cycle_count_back, quality.cycle_count_back_by) == (2, "counter")


def test_predictions_that_no_such_battery_can_have_are_an_incident_above_a_tenth() -> None:
    sound = [asked(3.5, float(n), n) for n in range(9)]
    at_limit = found(*sound, asked(3.5, 9.0, 9, capacity_ah=2.6))
    assert (at_limit.out_of_physical_range, at_limit.incident) == (0.1, False)
    above = found(*sound[1:], asked(3.5, 9.0, 9, capacity_ah=-0.1))
    assert above.out_of_physical_range == pytest.approx(1 / 9)
    assert above.incident


def test_vehicles_without_a_profile_do_not_count_for_the_physical_range() -> None:
    strange = asked(3.5, 1.0, vehicle="stranger-1", capacity_ah=99.0)
    assert found(asked(3.5, 1.0), strange).out_of_physical_range == 0.0
    alone = found(strange)
    assert math.isnan(alone.out_of_physical_range)
    assert not alone.incident


def test_the_share_out_of_the_domain_is_of_answers_that_were_looked_at() -> None:
    quality = found(
        asked(3.5, 1.0),
        asked(3.5, 2.0, status="out_of_domain"),
        asked(3.5, 3.0, status="unknown"),
    )
    assert quality.out_of_domain == 0.5


def test_refused_questions_are_told_where_somebody_counted_them() -> None:
    counts = QualityCounts.of(WATCHED, frame([asked(3.5, 1.0), asked(3.5, 2.0)]))
    assert counts.quality().to_json()["refused"] is None
    assert counts.quality(refused=6).refused == 0.75


def test_of_no_answers_nothing_is_said() -> None:
    assert found().to_json() == {
        "rows": 0,
        "cycle_count_back": 0,
        "cycle_count_back_by": "capacity",
        "refused": None,
        "incident": False,
    }


def test_features_that_repeat_by_their_nature_are_not_called_stuck() -> None:
    answers = [asked(3.5, float(n), n) for n in range(9)]
    life = pl.DataFrame(answers).rename({"vehicle_id": "asset_id"})
    named = repeating_features(life, WATCHED.names)
    assert named == ("volts",)
    counts = QualityCounts.of(WATCHED, frame(answers))
    assert counts.quality(repeating=named).stuck == {"seconds": 0.0}


def test_a_lost_column_a_text_and_a_counter_that_is_no_feature_are_refused() -> None:
    table = frame([asked(3.5, 1.0)])
    with pytest.raises(DataError, match="no column volts"):
        QualityCounts.of(WATCHED, table.drop("volts"))
    with pytest.raises(DataError, match="feature volts is String"):
        QualityCounts.of(WATCHED, table.with_columns(pl.col("volts").cast(pl.String)))
    with pytest.raises(DataError, match="is none of volts, seconds"):
        Watched(FEATURES, cell_of, counter="cycles")
    with pytest.raises(DataError, match="do not add"):
        _ = QualityCounts.scan(WATCHED, []) + QualityCounts.scan(COUNTING, [])
    with pytest.raises(DataError, match="do not add"):
        _ = Sequences.none(2, 5) + Sequences.none(2, 6)
    with pytest.raises(DataError, match="expected 2 or more"):
        Sequences.of(table, ("volts",), run=1)


def test_columns_in_another_order_change_nothing() -> None:
    table = frame([asked(3.5, 1.0), asked(9.5, None, 1)])
    assert_same(QualityCounts.of(WATCHED, table.select(reversed(table.columns))), [table], WATCHED)


def test_beyond_what_is_kept_the_share_of_duplicates_is_an_estimate() -> None:
    random = np.random.default_rng(3)
    rows = pl.DataFrame({"x": random.integers(0, 20_000, 40_000).astype(np.float64)})
    exact = 1 - rows["x"].n_unique() / rows.height
    assert Repeats.of(rows).share == pytest.approx(exact, abs=1e-12)
    few = Repeats.of(rows, kept=2000)
    assert few.share == pytest.approx(exact, abs=0.03)  # 3 standard errors of 2,000 rows' share
    parts = [Repeats.of(part, kept=2000) for part in rows.iter_slices(999)]
    total = parts[0]
    for part in parts[1:]:
        total += part
    assert total.share == few.share


values = st.sampled_from([1.0, 1.0, 1.0, 2.0, None])
questions = st.lists(
    st.tuples(st.sampled_from(["EV-1", "EV-2", "b:EV-1"]), values, values, st.integers(0, 2)),
    max_size=40,
)


@given(rows=questions, cuts=st.lists(st.integers(0, 40), max_size=6))
@example(  # a run that neither begins nor ends with the chunks it is cut into
    rows=[("EV-1", volts, float(n), 0) for n, volts in enumerate((2.0, 1.0, 1.0, 1.0, 2.0))],
    cuts=[2, 3],
)
def test_any_cut_of_the_log_gives_the_same_counts(
    rows: list[tuple[str, float | None, float | None, int]], cuts: list[int]
) -> None:
    answers = [
        asked(
            volts,
            seconds,
            n,
            vehicle=whose.removeprefix("b:"),
            prediction_id=f"b:{n}" if whose.startswith("b:") else f"{n}",
            capacity_low_ah=1.0 + level,
            capacity_high_ah=1.5 + level,
        )
        for n, (whose, volts, seconds, level) in enumerate(rows)
    ]
    watched = Watched(FEATURES, cell_of, run=3)
    whole = frame(answers)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    chunks = [whole[start:end] for start, end in pairwise(ends)]
    assert_same(QualityCounts.scan(watched, chunks), [whole], watched)
    some, others = (QualityCounts.scan(watched, part) for part in (chunks[:2], chunks[2:]))
    assert_same(some + others, [whole], watched)
    counts = QualityCounts.of(watched, whole)
    expected = [by_a_plain_loop(rows, column, run=3) for column in (1, 2)]
    assert counts.sequences.stuck_answers().tolist() == expected
    assert counts.sequences.back.sum() == sum(
        later > earlier
        for name in ("EV-1", "EV-2", "b:EV-1")
        for earlier, later in pairwise([row[3] for row in rows if row[0] == name])
    )


def by_a_plain_loop(
    rows: list[tuple[str, float | None, float | None, int]], column: int, run: int
) -> int:
    """Answers in runs of `run` or more equal values, repeats of the question before left out."""
    stuck = 0
    for name in ("EV-1", "EV-2", "b:EV-1"):
        own = [row[1:3] for row in rows if row[0] == name]
        news = [row for n, row in enumerate(own) if n == 0 or row != own[n - 1]]
        length, before = 0, None
        for value in [row[column - 1] for row in news] + [None]:
            if value is not None and value == before:
                length += 1
                continue
            stuck += length if length >= run else 0
            length, before = (0 if value is None else 1), value
    return stuck


def assert_same(counts: QualityCounts, whole: list[pl.DataFrame], watched: Watched) -> None:
    expected = QualityCounts.scan(watched, whole)
    assert counts.quality().to_json() == expected.quality().to_json()
    assert counts.sequences.n.tolist() == expected.sequences.n.tolist()
