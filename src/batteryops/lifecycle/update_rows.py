"""The rows that an update of a model learns from: those of its past, and those that are new."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.protocols import asset_groups
from batteryops.features.views import FeatureView
from batteryops.lifecycle.realignment import Realignment
from batteryops.models.labelled import LabelledRows
from batteryops.models.replay import replay_places
from batteryops.settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class UpdateRows:
    """Old and new rows of a view; `rows_together` yields it.

    Args:
        view: of the features.
        table: all of them, by asset and `op_index`: what the next model's rows are.
        every: these rows.
        places: (m,), where in `table` the rows stand that fits learn from, in order.
        learned: these rows.
        old: those of them that the current model was fitted on.
        new: those that it was not.
        n_new: new rows in `table`.
        reference: (r,), where in `table` the rows stand that drift is measured against.
        replaced: old rows whose label was said anew, by a new row.
        realigned: what was done to rows of before a software update.
    """

    view: FeatureView
    table: pl.DataFrame
    every: LabelledRows
    places: NDArray[np.intp]
    learned: LabelledRows
    old: LabelledRows
    new: LabelledRows
    n_new: int
    reference: NDArray[np.intp]
    replaced: int
    realigned: tuple[Realignment, ...] = ()

    @property
    def learned_table(self) -> pl.DataFrame:
        """The rows that fits learn from, as a table."""
        return self.table[self.places]

    def to_json(self) -> dict[str, int]:
        """How many there are of each."""
        return {
            "all": self.table.height,
            "new": self.n_new,
            "replaced": self.replaced,
            "learned_old": len(self.old),
            "learned_new": len(self.new),
        }


def rows_together(
    old: pl.DataFrame, new: pl.DataFrame, view: FeatureView, settings: Settings
) -> UpdateRows:
    """Put new rows to those of the past.

    A new row follows the rows that its asset has: its `op_index` goes on from theirs, as a label
    that comes weeks late does not say which of the asset's cycles it is of. New rows are numbered
    in their own order. Where a new row has the very features of an old one of its asset, it is a
    later word on the same cycle, and the old one goes.

    A fit learns from `retraining.max_rows` of them at most, half of them new ones if there are so
    many: drawn as a replay sample is, so that what is rare stays.

    Args:
        old: as `training_rows.rows_of` gives them.
        new: `asset_id`, `op_index`, the features, `capacity_ah`, and `answered_at` where it is
            known when a question was asked, which is kept: a later software update concerns what
            was asked before it. Further columns are passed over.
        view: of the features.
        settings: groups, profiles, and how many rows to learn from.

    Raises:
        DataError: there are no new rows.
        UnknownAssetError: an asset has no profile.
    """
    if new.is_empty():
        raise DataError("there are no new labels to learn from")
    if "answered_at" in new.columns and "answered_at" not in old.columns:
        old = old.with_columns(answered_at=pl.lit(None, new.schema["answered_at"]))
    key = ["asset_id", *view.names]
    latest = new.unique(key, keep="last", maintain_order=True)
    kept = old.join(latest.select(key), on=key, how="anti", nulls_equal=True, maintain_order="left")
    last = old.group_by("asset_id").agg(pl.col("op_index").max().alias("last"))
    place = pl.int_range(1, pl.len() + 1).over("asset_id") + pl.col("last").fill_null(0)
    asked_last = pl.col("answered_at") if "answered_at" in latest.columns else pl.lit(0)
    numbered = (
        latest.sort("asset_id", "op_index", maintain_order=True)
        .join(last, on="asset_id", how="left", maintain_order="left")
        .with_columns(op_index=place)
        .select(
            *(
                pl.col(name).cast(kind)
                if name in latest.columns
                else pl.lit(None, kind).alias(name)
                for name, kind in old.schema.items()
            ),
            newest=asked_last.rank("ordinal", descending=True),
        )
    )
    # `newest` numbers new rows from the one that was asked last; old ones have none
    table = pl.concat([kept, numbered], how="diagonal").sort("asset_id", "op_index")
    newest = table["newest"].fill_null(0).to_numpy()
    is_new, table = newest > 0, table.drop("newest")
    rows = labelled(table, view, settings)
    most, seed = settings.retraining.max_rows, settings.training.seed
    old_at, new_at = np.flatnonzero(~is_new), np.flatnonzero(is_new)
    new_at = _sample(rows, new_at, max(most // 2, most - old_at.size), seed)
    if old_at.size:
        old_at = _sample(rows, old_at, max(1, most - new_at.size), seed)
    if not old_at.size:
        raise DataError("every old row was said anew, so that nothing is left to judge the past by")
    places = np.sort(np.concatenate([old_at, new_at]))
    return UpdateRows(
        view=view,
        table=table,
        every=rows,
        places=places,
        learned=rows[places],
        old=rows[old_at],
        new=rows[new_at],
        n_new=int(is_new.sum()),
        reference=_reference(newest, settings),
        replaced=old.height - kept.height,
    )


def _reference(newest: NDArray[np.integer], settings: Settings) -> NDArray[np.intp]:
    """The rows that drift is measured against: those of now, as far as there are enough.

    Beside all rows of the past, what has changed would look like drift for ever, and what was
    learned three weeks after a change is mostly from before it.
    """
    rules = settings.retraining
    if int((newest > 0).sum()) < rules.min_labels:
        return np.arange(newest.size)
    return np.flatnonzero((newest > 0) & (newest <= rules.reference_rows))


def labelled(table: pl.DataFrame, view: FeatureView, settings: Settings) -> LabelledRows:
    """Rows of a feature table with their groups and profiles as configured.

    Raises:
        UnknownAssetError: an asset has no profile.
    """
    assets = table["asset_id"].unique(maintain_order=True).to_list()
    profiles = {asset: settings.profile_of(asset) for asset in assets}
    nominal: dict[str, Any] = {one.name: one.nominal_capacity_ah for one in profiles.values()}
    return LabelledRows.of(
        view,
        table,
        profiles={asset: profile.name for asset, profile in profiles.items()},
        nominal_ah=nominal,
        groups=asset_groups(assets, settings.evaluation.groups),
    )


def _sample(rows: LabelledRows, places: NDArray[np.intp], size: int, seed: int) -> NDArray[np.intp]:
    if places.size <= size:
        return places
    return places[replay_places(rows[places], size, seed=seed)]
