"""What shows only in the order of a vehicle's answers: stuck features, lives that go backwards.

A chunk of the log becomes one row of numbers per vehicle, which joins with that of the chunk after
it: what happened within, and what it begins and ends with, so that runs across the border are seen.
Chunks must be joined in the order of the log; where the cuts lie changes nothing.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

STUCK_RUN: Final = 5
"""So many consecutive answers with one value, while other features move, are no coincidence."""

_KEY: Final = ("vehicle_id", "batch")
_KINDS: Final = (pl.String(), pl.Boolean())


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """The answers of v vehicles, in order; `a + b` is a and then b.

    An answer to the very question that was answered just before is a repeat and no news of any
    sensor: it is passed over, so that in what remains some feature moves at every step. A missing
    value ends a run.

    Args:
        keys: `vehicle_id` and `batch`, (v,), sorted: the log gives single answers first and then
            those of batches, and each of the two has an order of its own.
        n: (v,), answers without repeats.
        first: (v, k), features of the first, NaN where missing.
        last: (v, k), of the last.
        before: (v, k), length of the run at the start; n where all are one run.
        after: (v, k), of the run at the end.
        stuck: (v, k), answers in long runs that touch neither end.
        least: (v,), least state of life that the first answer allows; NaN where it says nothing.
        most: (v,), largest that the last one allows.
        back: (v,), how often the least of an answer lay above the most of the one before.
        run: so many answers are a long run.
    """

    keys: pl.DataFrame
    n: Counts
    first: Floats
    last: Floats
    before: Counts
    after: Counts
    stuck: Counts
    least: Floats
    most: Floats
    back: Counts
    run: int

    @classmethod
    def none(cls, width: int, run: int) -> Self:
        """No answers at all, to begin with."""
        nobody, empty = np.zeros(0, dtype=np.int64), np.zeros((0, width), dtype=np.int64)
        numbers, ends = empty.astype(np.float64), nobody.astype(np.float64)
        keys = pl.DataFrame(schema=dict(zip(_KEY, _KINDS, strict=True)))
        return cls(keys, nobody, numbers, numbers, empty, empty, empty, ends, ends, nobody, run)

    @classmethod
    def of(
        cls,
        predictions: pl.DataFrame,
        features: tuple[str, ...],
        *,
        counter: str | None = None,
        run: int = STUCK_RUN,
    ) -> Self:
        """Of a chunk of the log.

        A state of life goes one way. What it is read from: the feature that counts cycles, where
        there is one; else the predicted capacity, whose interval is what the answer allows.

        Args:
            predictions: `vehicle_id`, `prediction_id`, the interval's ends and the features as
                Float64, in the order of the log.
            features: k of them.
            counter: the one that counts cycles; None where none does.
            run: so many answers are a long run, 2 or more.

        Raises:
            DataError: when `run` is less than 2.
        """
        if run < 2:  # noqa: PLR2004 - a single answer is no run
            raise DataError(f"a run of {run} answers; expected 2 or more")
        if predictions.is_empty():
            return cls.none(len(features), run)
        table = predictions.with_columns(
            batch=pl.col("prediction_id").str.contains(":", literal=True)
        ).sort(_KEY, maintain_order=True)
        keys = table.select(_KEY).unique(maintain_order=True)
        whose = table.select(pl.struct(_KEY).rle_id()).to_series().to_numpy().astype(np.int64)
        values = _numbers(table, features)
        low, high = _numbers(table, ("capacity_low_ah", "capacity_high_ah")).T
        if counter is not None:  # grows while capacity falls
            low = high = -values[:, features.index(counter)]
        begins = np.concatenate([[True], whose[1:] != whose[:-1]])
        goes_back = np.concatenate([[False], low[1:] > high[:-1]]) & ~begins
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], whose.size) - 1
        repeats = np.concatenate([[False], _same(values[1:], values[:-1]).all(axis=1)]) & ~begins
        kept, owner = values[~repeats], whose[~repeats]
        before, after, stuck = _runs(kept, owner, keys.height, run)
        return cls(
            keys=keys,
            n=np.bincount(owner, minlength=keys.height),
            first=values[starts],
            last=values[ends],
            before=before,
            after=after,
            stuck=stuck,
            least=low[starts],
            most=high[ends],
            back=np.bincount(whose, goes_back, keys.height).astype(np.int64),
            run=run,
        )

    def __add__(self, other: "Sequences") -> "Sequences":
        """These answers, and the other ones after them.

        Raises:
            DataError: when runs or features differ.
        """
        if self.run != other.run or self.first.shape[1] != other.first.shape[1]:
            raise DataError("sequences of other features, or of runs of another length, do not add")
        places = (
            self.keys.with_row_index("mine")
            .join(other.keys.with_row_index("others"), on=_KEY, how="full", coalesce=True)
            .sort(_KEY)
        )
        a, b = self._at(places["mine"]), other._at(places["others"])
        common = (a.n > 0) & (b.n > 0)
        repeated = common & _same(a.last, b.first).all(axis=1)  # the other's first is no news
        n = a.n + b.n - repeated
        rest = (b.n - repeated)[:, None]
        start = b.before - repeated[:, None]  # of the other's first run, what is news
        goes_on = common[:, None] & np.where(repeated[:, None], start >= 1, a.last == b.first)
        one_a, one_b = a.before == a.n[:, None], start == rest
        ends = (common[:, None] & (rest > 0)).astype(np.int64)
        stuck = a.stuck + b.stuck
        stuck += ends * (goes_on & ~one_a & ~one_b) * self._long(a.after + start)
        stuck += ends * (~goes_on & ~one_a) * self._long(a.after)
        stuck += ends * (~goes_on & ~one_b) * self._long(start)
        tail = np.where(one_b, start + goes_on * a.after, b.after)
        missing_a, missing_b = (a.n == 0)[:, None], (rest == 0)
        return Sequences(
            keys=places.select(_KEY),
            n=n,
            first=np.where(missing_a, b.first, a.first),
            last=np.where(missing_b, a.last, b.last),
            before=np.where(missing_a, b.before, a.before + (one_a & goes_on) * start),
            after=np.where(missing_b, a.after, np.where(missing_a, b.after, tail)),
            stuck=stuck,
            least=np.where(missing_a[:, 0], b.least, a.least),
            most=np.where(b.n == 0, a.most, b.most),
            back=a.back + b.back + (common & (b.least > a.most)),
            run=self.run,
        )

    def stuck_answers(self) -> Counts:
        """How many answers lie in long runs, (k,)."""
        whole = self.before == self.n[:, None]
        ends = self._long(self.before) + np.where(whole, 0, self._long(self.after))
        total: Counts = (self.stuck + ends).sum(axis=0)
        return total

    def _long(self, lengths: Counts) -> Counts:
        return np.where(lengths >= self.run, lengths, 0)

    def _at(self, places: pl.Series) -> "Sequences":
        """Rows at places, of nobody where there is no place."""
        known = places.is_not_null().to_numpy()
        index = places.fill_null(0).to_numpy().astype(np.int64)

        def spread(array: NDArray[Any]) -> NDArray[Any]:
            found = np.zeros((len(known), *array.shape[1:]), dtype=array.dtype)
            found[known] = array[index[known]]
            return found

        return Sequences(
            keys=self.keys,
            n=spread(self.n),
            first=spread(self.first),
            last=spread(self.last),
            before=spread(self.before),
            after=spread(self.after),
            stuck=spread(self.stuck),
            least=spread(self.least),
            most=spread(self.most),
            back=spread(self.back),
            run=self.run,
        )


def _numbers(table: pl.DataFrame, names: tuple[str, ...]) -> Floats:
    columns = [table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in names]
    return np.column_stack(columns) if columns else np.zeros((table.height, 0))


def _same(one: Floats, other: Floats) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return same


def _runs(values: Floats, owner: Counts, n_owners: int, run: int) -> tuple[Counts, Counts, Counts]:
    """Lengths of the first and last run of each owner, and answers in long runs between, (v, k)."""
    before, after, stuck = (np.zeros((n_owners, values.shape[1]), dtype=np.int64) for _ in range(3))
    borders = np.concatenate([[True], owner[1:] != owner[:-1]])
    for column, along in enumerate(values.T):
        news = np.concatenate([[True], along[1:] != along[:-1]]) | borders
        starts = np.flatnonzero(news)
        lengths = np.diff(np.append(starts, owner.size))
        whose = owner[starts]
        first = borders[starts]
        last = np.append(first[1:], [True])
        before[whose[first], column] = lengths[first]
        after[whose[last], column] = lengths[last]
        between = ~first & ~last & (lengths >= run)
        stuck[:, column] = np.bincount(whose[between], lengths[between], n_owners)
    return before, after, stuck
