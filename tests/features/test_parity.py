"""Training equals serving: invariants of every view, and a second implementation in NumPy."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.features.views import VIEWS, FeatureView, feature_table, get_view
from batteryops.schema import Recording

MakeRecording = Callable[..., Recording]
Channels = NDArray[np.float64]
Row = tuple[float | None, float | None, float | None, float | None]
Cycles = dict[tuple[str, int], list[Row]]

_STEPS_S = st.sampled_from([0.5, 9.4, 18.7, 30.0, 60.0, 61.0, 300.0])
_VOLTAGES_V = st.one_of(st.none(), st.floats(2.0, 4.3), st.sampled_from([2.7, 3.4, 3.9]))
_CURRENTS_A = st.one_of(
    st.none(), st.sampled_from([-4.0, -2.0, -1.0, -0.1, 0.0]), st.floats(-4.1, 0.05)
)
_TEMPERATURES_C = st.one_of(st.none(), st.floats(-10.0, 70.0))
_SAMPLES = st.tuples(_STEPS_S, _VOLTAGES_V, _CURRENTS_A, _TEMPERATURES_C)


@st.composite
def cycles(draw: st.DrawFn) -> Cycles:
    """One to five discharges of up to 30 samples, with strictly ascending times from 0 s."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(["A", "B", "C"]), st.integers(1, 9)),
            min_size=1,
            max_size=5,
            unique=True,
        )
    )
    built: Cycles = {}
    for key in keys:
        samples = draw(st.lists(_SAMPLES, min_size=1, max_size=30))
        times = np.cumsum([0.0, *(step for step, *_ in samples[1:])]).tolist()
        built[key] = [(time, *values) for time, (_, *values) in zip(times, samples, strict=True)]
    return built


every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=lambda view: view.name)


@every_view
@given(given_cycles=cycles(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_order_of_the_rows_does_not_matter(
    make_recording: MakeRecording, view: FeatureView, given_cycles: Cycles, seed: int
) -> None:
    recording = make_recording(given_cycles)
    shuffled = recording.samples.sample(fraction=1.0, shuffle=True, seed=seed)

    assert view.compute(shuffled, recording.cycles).equals(
        view.compute(recording.samples, recording.cycles)
    )


@every_view
@given(given_cycles=cycles())
@settings(max_examples=30)
def test_a_cycle_alone_equals_itself_among_others_to_the_last_bit(
    make_recording: MakeRecording, view: FeatureView, given_cycles: Cycles
) -> None:
    together = feature_table(view, make_recording(given_cycles))

    alone = [feature_table(view, make_recording({key: rows})) for key, rows in given_cycles.items()]

    assert pl.concat(alone).sort("asset_id", "op_index").equals(together)


@every_view
def test_samples_with_equal_times_have_one_order_whatever_is_given(
    make_recording: MakeRecording, view: FeatureView
) -> None:
    rows = [
        (0.0, 4.2, 0.0, 24.0),
        (5.0, 4.2, 0.0, 24.0),
        (5.0, 3.9, -2.0, 24.5),
        (9.0, 3.8, -2.0, 25.0),
    ]

    tables = [
        feature_table(view, make_recording({("A", 1): [rows[i] for i in order]}))
        for order in ([0, 1, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0])
    ]

    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


@every_view
def test_samples_without_time_do_not_stop_the_others(
    make_recording: MakeRecording, view: FeatureView
) -> None:
    rows = [(0.0, 4.0, -2.0, 24.0), (None, 3.9, -2.0, 24.0), (60.0, 3.8, -2.0, 25.0)]

    row = feature_table(view, make_recording({("A", 1): rows})).row(0, named=True)

    assert row.get("discharge_time_s", 60.0) == 60.0
    assert row.get("voltage_V_mean", 3.9) == pytest.approx((4.0 + 3.9 + 3.8) / 3)
    assert row.get("voltage_V_60s", 3.8) == pytest.approx(3.8)


@given(given_cycles=cycles())
@settings(max_examples=60)
def test_a_second_implementation_agrees(
    make_recording: MakeRecording, given_cycles: Cycles
) -> None:
    view = get_view("discharge_physics")
    table = feature_table(view, make_recording(given_cycles))

    for row in table.iter_rows(named=True):
        rows = given_cycles[row["asset_id"], row["op_index"]]
        _assert_agrees(view, row, np.array(rows, dtype=np.float64))


@pytest.mark.data
@pytest.mark.parametrize("asset", ["B0005", "B0025", "B0041", "B0052"])
def test_a_second_implementation_agrees_on_real_cells(nasa: Recording, asset: str) -> None:
    view = get_view("discharge_physics")
    samples = nasa.samples.filter(pl.col("asset_id") == asset)
    listed = nasa.cycles.filter(pl.col("asset_id") == asset)
    table = feature_table(view, Recording(samples, listed, asset))

    for (index,), cycle in samples.group_by("cycle_index"):
        row = table.row(by_predicate=pl.col("op_index") == index, named=True)
        channels = cycle.select("time_s", "voltage_v", "current_a", "temperature_c").to_numpy()
        _assert_agrees(view, row, channels)


@pytest.mark.data
@every_view
def test_real_cycles_alone_and_in_any_order_equal_the_batch_to_the_last_bit(
    nasa: Recording, view: FeatureView
) -> None:
    table = view.compute(nasa.samples, nasa.cycles)
    some = nasa.samples.filter(pl.struct("asset_id", "cycle_index").hash(seed=1) % 40 == 0)

    for (asset, index), cycle in some.group_by("asset_id", "cycle_index"):
        alone = view.compute(cycle.reverse(), nasa.cycles)
        assert alone.equals(table.filter(asset_id=asset, op_index=index))


def _assert_agrees(view: FeatureView, row: dict[str, object], channels: Channels) -> None:
    expected = _second_implementation(channels) | {
        "ambient_temperature_C": row["ambient_temperature_C"]
    }
    assert set(expected) == set(view.names)
    for name, value in expected.items():
        # a slope of nearly equal voltages is a difference of nearly equal numbers
        agrees = value if value is None else pytest.approx(value, rel=1e-9, abs=1e-6)
        assert row[name] == agrees, name


def _second_implementation(channels: Channels) -> dict[str, float | None]:
    """The features of one discharge: a loop and NumPy, written from the declarations alone."""
    time, voltage, current, temperature = channels.T
    result: dict[str, float | None] = dict.fromkeys(get_view("discharge_physics").names[:-1])
    result |= {
        "voltage_V_mean": _or_none(np.nanmean, voltage),
        "current_A_mean": _or_none(np.nanmean, current),
        "temperature_C_mean": _or_none(np.nanmean, temperature),
        "temperature_C_max": _or_none(np.nanmax, temperature),
        "discharge_time_s": float(time[-1]),
        "delta_T_C": _or_none(lambda t: np.nanmax(t) - np.nanmin(t), temperature),
    }
    if (voltage <= 3.4).any():
        result["voltage_drop_time_s"] = time[voltage <= 3.4][0] - time[voltage <= 3.9][0]
    whole = channels[~np.isnan(channels[:, :3]).any(axis=1)]
    on = np.flatnonzero(whole[:, 2] <= -0.1)
    if on.size > 0:
        result |= _whole_load(whole, on)
        result |= _curve(whole[on, 0] - whole[on[0], 0], whole[on, 1])
        result |= _to_cutoff(whole, on)
    return result


def _whole_load(whole: Channels, on: NDArray[np.intp]) -> dict[str, float]:
    time, voltage, current, temperature = whole.T
    first, last = on[0], on[-1]
    result = {
        "power_W_mean": float(np.mean(-voltage[on] * current[on])),
        "current_A_std": float(np.std(current[on])),
        "voltage_V_std": float(np.std(voltage[on])),
    }
    if first > 0:
        step_a = current[first - 1] - current[first]
        result["ohmic_step_ohm"] = (voltage[first - 1] - voltage[first]) / step_a
    rise = temperature[last] - temperature[first]
    if last > first and not np.isnan(rise):
        result["temperature_rise_C_per_min"] = rise / (time[last] - time[first]) * 60
    return result


def _curve(since: Channels, voltage: Channels) -> dict[str, float]:
    result = {}
    for seconds in (60, 300, 900):
        if since[-1] >= seconds:
            after = int(np.searchsorted(since, seconds))
            if since[after] == seconds or since[after] - since[after - 1] <= 60:
                result[f"voltage_V_{seconds}s"] = float(np.interp(seconds, since, voltage))
    for name, start, end in (("early", 60, 600), ("late", 600, 1800)):
        inside = (since >= start) & (since < end)
        if inside.sum() >= 2:
            line = np.polynomial.Polynomial.fit(since[inside], voltage[inside], 1)
            per_s = (line(since[inside][-1]) - line(since[inside][0])) / np.ptp(since[inside])
            result[f"voltage_slope_{name}_mV_per_min"] = per_s * 60_000
    return result


def _to_cutoff(whole: Channels, on: NDArray[np.intp]) -> dict[str, float]:
    time, voltage, current, _ = whole.T
    below = on[voltage[on] < 2.7]
    if below.size == 0:
        return {}
    until = below[0] + 1
    energy_ws = np.trapezoid(-voltage[:until] * current[:until], time[:until])
    return {
        "time_to_cutoff_s": time[below[0]] - time[on[0]],
        "energy_to_cutoff_Wh": float(energy_ws) / 3600,
    }


def _or_none(reduce: Callable[[Channels], np.floating], values: Channels) -> float | None:
    return None if np.isnan(values).all() else float(reduce(values))
