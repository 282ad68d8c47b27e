"""The training domain: what training covered is inside, what it never saw is outside and named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.models.domain import Domain
from batteryops.models.domain_fit import fit_domain, held_out_distances

NAMES = ("voltage", "seconds", "optional")


def fleet(*, gaps: bool = True) -> tuple[NDArray[np.float32], list[str]]:
    """Thirty cells whose discharge time falls as their voltage does; every sixth lacks a value."""
    random = np.random.default_rng(8)
    age = np.tile(np.linspace(0.0, 1.0, 20), 30)
    rows = np.column_stack(
        [
            3.6 - 0.2 * age + random.normal(0, 0.01, 600),
            3600 - 1200 * age + random.normal(0, 40, 600),
            random.normal(0, 1, 600),
        ]
    ).astype(np.float32)
    if gaps:
        rows[::6, 2] = np.nan
    return rows, [f"cell {row // 20}" for row in range(600)]


@pytest.fixture(scope="module")
def domain() -> Domain:
    return fit_domain(*fleet(), NAMES)


def asked(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_a_row_like_those_of_training_is_inside(domain: Domain) -> None:
    found = domain.look(asked(3.5, 3000.0, 0.3))
    assert found.inside
    assert (found.features, found.joint) == ((), False)


@pytest.mark.parametrize("seconds", [1000.0, 5000.0])
def test_a_feature_beyond_what_training_saw_is_named(domain: Domain, seconds: float) -> None:
    found = domain.look(asked(3.5, seconds, 0.3))
    assert not found.inside
    assert found.features == ("seconds",)


def test_features_possible_alone_but_not_together_are_outside_jointly(domain: Domain) -> None:
    found = domain.look(asked(3.6, 2450.0, 0.0))  # the voltage of a new cell, the time of an old
    assert found.joint
    assert set(found.features) <= {"voltage", "seconds"}
    assert found.features


def test_a_feature_that_training_lacked_at_times_may_be_missing(domain: Domain) -> None:
    assert domain.look(asked(3.5, 3000.0, np.nan)).inside


def test_a_feature_that_training_always_had_must_not_be_missing(domain: Domain) -> None:
    assert domain.look(asked(np.nan, 3000.0, 0.3)).features == ("voltage",)
    whole = fit_domain(*fleet(gaps=False), NAMES)
    assert whole.look(asked(3.5, 3000.0, np.nan)).features == ("optional",)


def test_a_row_that_lacks_more_than_any_training_row_did_is_outside() -> None:
    rows, groups = fleet(gaps=False)
    rows[::7, 0] = np.nan
    rows[1::7, 1] = np.nan
    rows[2::7, 2] = np.nan
    domain = fit_domain(rows, groups, NAMES)
    assert domain.look(asked(np.nan, 3000.0, 0.3)).inside
    empty = asked(np.nan, np.nan, np.nan)
    assert domain.look(empty).features == NAMES
    assert domain.look_all(empty[None]) == [domain.look(empty)]


@given(
    st.lists(
        st.tuples(
            st.floats(3.0, 4.0, width=32),
            st.floats(0.0, 8000.0, width=32),
            st.one_of(st.floats(-9.0, 9.0, width=32), st.just(float("nan"))),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_rows_looked_at_together_lie_where_they_lie_alone(
    rows: list[tuple[float, float, float]],
) -> None:
    domain = fit_domain(*fleet(), NAMES)
    matrix = np.array(rows, dtype=np.float32)
    for row, found in zip(matrix, domain.look_all(matrix), strict=True):
        alone = domain.look(row)
        assert found.distance == pytest.approx(alone.distance, abs=1e-6)
        assert (found.features, found.joint) == (alone.features, alone.joint)


def test_nearly_all_rows_of_groups_held_out_are_within_the_limit() -> None:
    rows, groups = fleet()
    names = np.array(groups)
    inside: list[bool] = []
    for held in ("cell 3", "cell 17", "cell 29"):
        known = names != held
        found = fit_domain(rows[known], names[known], NAMES).look_all(rows[~known])
        inside.extend(position.inside for position in found)
    assert np.mean(inside) > 0.9


def test_distances_are_to_other_groups_only() -> None:
    rows = np.array([[0.0], [0.1], [5.0], [5.1]], dtype=np.float32)
    distances = held_out_distances(rows, ["a", "a", "b", "b"], ["x"])
    assert (distances > 1.0).all()
    assert np.isinf(held_out_distances(rows, ["a"] * 4, ["x"])).all()


def test_one_group_alone_limits_features_but_no_distance() -> None:
    rows, _ = fleet()
    alone = fit_domain(rows, ["a"] * len(rows), NAMES)
    assert alone.limit == np.inf
    assert alone.look(asked(3.5, 9000.0, 0.0)).features == ("seconds",)


class TestWhatTheModelDoesNotLookAt:
    """A model of voltage and seconds: the third feature may be anything."""

    @pytest.fixture
    def partial(self) -> Domain:
        return fit_domain(*fleet(), NAMES, checked={"voltage", "seconds"})

    @pytest.mark.parametrize("optional", [0.3, 1e6, np.nan])
    def test_puts_no_row_outside(self, partial: Domain, optional: float) -> None:
        rows = asked(3.5, 3000.0, optional)
        assert partial.look(rows).inside
        assert partial.look_all(rows[None]) == [partial.look(rows)]

    def test_leaves_the_others_checked_as_if_it_were_not_there(self, partial: Domain) -> None:
        rows, groups = fleet()
        alone = fit_domain(rows[:, :2], groups, NAMES[:2])
        assert partial.limit == pytest.approx(alone.limit)
        for values in ((3.5, 3000.0), (3.6, 2450.0), (3.5, 9000.0), (np.nan, 3000.0)):
            found, expected = partial.look(asked(*values, -5.0)), alone.look(asked(*values))
            assert found.distance == pytest.approx(expected.distance)
            assert (found.features, found.joint) == (expected.features, expected.joint)

    def test_stays_unchecked_in_a_package(self, partial: Domain) -> None:
        again = Domain.from_json(json.loads(json.dumps(partial.to_json())))
        assert again.look(asked(3.5, 3000.0, 1e6)).inside
        assert again.look(asked(np.nan, 3000.0, 1e6)).features == ("voltage",)

    def test_cannot_be_everything(self) -> None:
        with pytest.raises(DataError, match="name one feature at least"):
            fit_domain(*fleet(), NAMES, checked=())


def test_a_package_from_before_features_could_be_unchecked_checks_all(domain: Domain) -> None:
    document = domain.to_json()
    for feature in document["features"].values():
        del feature["checked"]
    assert Domain.from_json(document).checked.all()


def test_a_domain_answers_alike_after_its_document(domain: Domain) -> None:
    again = Domain.from_json(json.loads(json.dumps(domain.to_json())))
    assert again.names == NAMES
    for row in (asked(3.5, 3000.0, 0.3), asked(3.6, 2450.0, np.nan), asked(np.nan, 0.0, 99.0)):
        one, other = domain.look(row), again.look(row)
        assert other.distance == pytest.approx(one.distance, rel=1e-4)
        assert (other.features, other.joint) == (one.features, one.joint)


@pytest.mark.parametrize("absent", ["features", "limit", "mixing", "rows", "most_missing"])
def test_a_document_without_a_part_is_refused(domain: Domain, absent: str) -> None:
    document = domain.to_json()
    del document[absent]
    with pytest.raises(PackageError, match="train again"):
        Domain.from_json(document)


def test_a_document_without_rows_is_refused(domain: Domain) -> None:
    with pytest.raises(PackageError, match="holds no rows"):
        Domain.from_json(domain.to_json() | {"rows": []})


def test_features_of_another_shape_are_refused(domain: Domain) -> None:
    with pytest.raises(DataError, match=r"expected \(n, 3\)"):
        domain.look_all(np.zeros((2, 2)))
    with pytest.raises(DataError, match="infinite"):
        domain.look_all(np.full((1, 3), np.inf))


@pytest.mark.parametrize("strange", ["nothing", "a value", "all together", "a gap"])
def test_a_few_rows_are_looked_at_as_all_are(strange: str) -> None:
    random = np.random.default_rng(3)
    age = random.uniform(size=(400, 1))
    life = age * [1.0, 2.0, 3.0] + random.normal(0, 0.01, (400, 3))
    domain = fit_domain(life, [f"cell {row % 20}" for row in range(400)], ["a", "b", "c"])
    asked = life[:8].astype(np.float32)
    asked[3] = {
        "nothing": asked[3],
        "a value": [0.5, 1.0, 9.0],
        "all together": [0.9, 0.2, 2.7],  # each within its range
        "a gap": [0.5, np.nan, 1.5],
    }[strange]
    found = domain.look_few(asked)
    assert [place.inside for place in found] == [
        row != 3 or strange == "nothing" for row in range(8)
    ]
    for few, every in zip(found, domain.look_all(asked), strict=True):
        assert (few.features, few.joint) == (every.features, every.joint)
        assert few.distance == pytest.approx(every.distance, abs=1e-9)
