"""Every way to compress, measured on the same rows: nothing of the test decides anything."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.evaluation.protocols import SplitPlan, make_splits
from batteryops.features.views import get_view
from batteryops.lifecycle import speed
from batteryops.lifecycle.compression import (
    Compression,
    change_of,
    compress_source,
    evaluate_variants,
)
from batteryops.lifecycle.evaluation import evaluate_table
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.sources import open_source
from batteryops.models.compression_variants import VARIANTS, Variant
from batteryops.schema import LABEL
from batteryops.settings import Settings, load_settings

FEW = Variant(few=True)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, quick_config: Path) -> Settings:
    found = load_settings(quick_config, home=tmp_path_factory.mktemp("compression") / "home")
    parameters = {**found.training.parameters, "n_estimators": 20}
    training = found.training.model_copy(update={"parameters": parameters})
    return found.model_copy(update={"training": training})


@pytest.fixture(scope="module")
def prepared(settings: Settings, fleet_file: Path) -> Prepared:
    return prepare(open_source(str(fleet_file), settings), get_view("discharge_summary"), settings)


class Told:
    """Remembers what a task said."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.parts: list[tuple[int, int]] = []

    def step(self, name: str) -> None:
        self.steps.append(name)

    def within(self, done: int, total: int) -> None:
        self.parts.append((done, total))


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def compressed(settings: Settings, fleet_file: Path, told: Told) -> Compression:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "ROUNDS", 16)
        return compress_source(
            settings,
            features_file=None,
            source=str(fleet_file),
            view=None,
            protocols=(),
            progress=told,
        )


def test_every_variant_is_tested_on_the_same_rows_under_both_protocols(
    compressed: Compression,
) -> None:
    assert [one.variant for one in compressed.variants] == list(VARIANTS)
    for protocol in ("random", "unseen_assets"):
        rows = [
            one.evaluated[protocol].result.predictions.select("asset_id", "op_index", LABEL)
            for one in compressed.variants
        ]
        assert all(other.equals(rows[0]) for other in rows[1:])


def test_the_full_variant_is_the_model_that_evaluate_measures(
    compressed: Compression, prepared: Prepared, settings: Settings
) -> None:
    alone = evaluate_table(prepared.table, prepared.view, "random", settings)
    assert compressed.variants[0].evaluated["random"].result.metrics == alone.metrics


def test_labels_of_test_rows_choose_no_feature_and_change_no_answer(
    prepared: Prepared, settings: Settings
) -> None:
    [split] = make_splits(
        prepared.table,
        "later_cycles",
        SplitPlan.from_settings(settings.evaluation, settings.training.seed),
    )
    labels = prepared.table[LABEL].to_numpy().copy()
    # the label of each test row is now one of its features, which would be chosen by it
    labels[split.test] = prepared.table["temperature_C_max"].to_numpy()[split.test] / 30.0
    other = replace(prepared, table=prepared.table.with_columns(pl.Series(LABEL, labels)))

    before, after = (
        evaluate_variants(one, settings, "later_cycles", Silent()) for one in (prepared, other)
    )

    for variant in VARIANTS:
        assert after[variant].chosen == before[variant].chosen
        assert (
            after[variant]
            .result.predictions["predicted_ah"]
            .equals(before[variant].result.predictions["predicted_ah"])
        )


def test_every_fold_chooses_five_of_the_views_features(compressed: Compression) -> None:
    names = get_view("discharge_summary").names
    for one in compressed.variants:
        for scored in one.evaluated.values():
            folds = len(scored.result.folds)
            count = 5 if one.variant.few else len(names)
            assert sum(scored.chosen.values()) == folds * count
            assert set(scored.chosen) <= set(names)
            assert max(scored.chosen.values()) <= folds
        assert len(one.features) == (5 if one.variant.few else len(names))
        assert set(one.shape.features) <= set(one.features)


def test_the_change_of_error_is_the_difference_of_both_errors(compressed: Compression) -> None:
    full = compressed.variants[0]
    for one in compressed.variants[1:]:
        for protocol, scored in one.evaluated.items():
            errors = [
                np.abs((result.predictions["predicted_ah"] - result.predictions[LABEL]).to_numpy())
                for result in (scored.result, full.evaluated[protocol].result)
            ]
            assert scored.change is not None
            assert scored.change.mae_ah == pytest.approx((errors[0] - errors[1]).mean(), abs=1e-12)
            assert scored.change.interval.low <= scored.change.interval.high
    assert all(scored.change is None for scored in full.evaluated.values())


def test_a_model_does_not_differ_from_itself(compressed: Compression, settings: Settings) -> None:
    full = compressed.variants[0].evaluated["unseen_assets"].result
    change = change_of(full, full, settings)
    assert (change.mae_ah, change.interval.low, change.interval.high) == (0.0, 0.0, 0.0)


def test_rounding_stays_within_its_bound_and_twins_answer_the_same(
    compressed: Compression,
) -> None:
    for one in compressed.variants:
        assert one.twin_difference_ah <= 1e-5
        assert (one.rounding_bound_ah > 0) == one.variant.half
        assert one.rounding_ah <= one.rounding_bound_ah + 1e-5


def test_float16_leaves_shorten_the_compact_form_by_two_bytes_each_and_no_other_file(
    compressed: Compression,
) -> None:
    by_variant = {one.variant: one for one in compressed.variants}
    for variant, one in by_variant.items():
        if not variant.half:
            continue
        before = by_variant[Variant(variant.shallow, variant.few)]
        assert one.shape.leaves == before.shape.leaves
        assert one.sizes.booster == before.sizes.booster
        assert one.sizes.onnx == before.sizes.onnx
        assert before.sizes.compact - one.sizes.compact == 2 * one.shape.leaves
        assert one.sizes.compact_gzip < before.sizes.compact_gzip


def test_speeds_are_told_as_ratios_to_the_full_model(compressed: Compression) -> None:
    full = compressed.variants[0].speed
    assert (full.row_ratio, full.batch_ratio) == (1.0, 1.0)
    for one in compressed.variants:
        assert 0 < one.speed.row_median_us <= one.speed.row_p99_us
        assert one.speed.row_ratio > 0
        assert one.speed.batch_ratio > 0
        assert one.speed.rows_per_s > 0


def test_it_says_what_it_is_doing_and_how_far_it_is(compressed: Compression, told: Told) -> None:
    assert compressed.variants
    assert [name.split(",")[0] for name in told.steps] == [
        "read",
        "fit every variant under random",
        "fit every variant under unseen_assets",
        f"fit every variant on {compressed.prepared.table.height} rows",
        "time single rows and batches",
        "weigh files",
    ]
    assert {(3, 3), (8, 8), (15, 16)} <= set(told.parts)  # folds, variants, rounds


def test_the_document_is_json(compressed: Compression) -> None:
    document = json.loads(json.dumps(compressed.to_json()))
    assert document["data_fingerprint"] == compressed.prepared.fingerprint
    last = document["variants"][-1]
    assert last["variant"] == "depth_7+five_features+float16_leaves"
    assert set(last["protocols"]) == {"random", "unseen_assets"}
    assert last["protocols"]["random"]["change"]["interval"].keys() == {"low", "high"}
    assert document["variants"][0]["protocols"]["random"]["change"] is None


def test_a_feature_table_is_compressed_like_the_cycles_it_came_from(
    prepared: Prepared, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 2)
    file = tmp_path / "table.parquet"
    prepared.table.write_parquet(file)
    found = compress_source(
        settings,
        features_file=file,
        source=None,
        view="discharge_summary",
        protocols=["random"],
        progress=Silent(),
    )
    assert found.prepared.table.height == prepared.table.height
    assert set(found.variants[0].evaluated) == {"random"}


def test_a_table_and_a_source_together_or_an_unknown_protocol_are_refused(
    settings: Settings,
) -> None:
    with pytest.raises(DataError, match="both --features and --source"):
        compress_source(
            settings,
            features_file=Path("table.csv"),
            source="nasa",
            view=None,
            protocols=(),
            progress=Silent(),
        )
    with pytest.raises(DataError, match="protocol 'sideways'; expected one of random"):
        compress_source(
            settings,
            features_file=None,
            source="nasa",
            view=None,
            protocols=["random", "sideways"],
            progress=Silent(),
        )
