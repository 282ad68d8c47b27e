"""The cells' open-circuit curves and limits."""

from dataclasses import replace

import numpy as np
import pytest

from batteryops.errors import DataError
from batteryops.telemetry.ageing import FloatArray
from batteryops.telemetry.chemistry import CHEMISTRIES, Chemistry, lfp_open_circuit

BOTH = pytest.mark.parametrize("chemistry", CHEMISTRIES.values(), ids=CHEMISTRIES)


@BOTH
def test_the_open_circuit_voltage_rises_with_the_state_of_charge(chemistry: Chemistry) -> None:
    assert np.all(np.diff(chemistry.open_circuit(np.linspace(0.0, 1.0, 5001))) > 0.0)


@BOTH
def test_the_open_circuit_curve_ends_at_the_voltages_of_an_empty_and_a_full_cell(
    chemistry: Chemistry,
) -> None:
    empty, full = chemistry.open_circuit(np.array([0.0, 1.0]))
    assert empty == pytest.approx(2.5, abs=2e-3)
    assert full == pytest.approx(chemistry.charge_cutoff_v, abs=2e-3)


def test_lfp_is_flat_where_it_stores_its_charge() -> None:
    low, high = lfp_open_circuit(np.array([0.2, 0.9]))
    assert high - low < 0.1


@pytest.mark.parametrize("field", ["nominal_ah", "r0_ohm", "c1_farad", "heat_transfer_w_k"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_an_element_that_is_not_positive_is_refused(field: str, value: float) -> None:
    # mypy cannot follow a field's name that is drawn
    change: dict[str, float] = {field: value}
    with pytest.raises(DataError, match=rf"{field} is .*expected above 0"):
        replace(CHEMISTRIES["NMC"], **change)  # type: ignore[arg-type]  # as said above


def test_a_curve_that_never_reaches_the_cutoff_is_refused() -> None:
    def high(soc: FloatArray) -> FloatArray:
        return 3.5 + 0.7 * soc

    with pytest.raises(DataError, match=r"spans 3\.500 to 4\.200 V.*2\.7 and 4\.2 V"):
        replace(CHEMISTRIES["NMC"], open_circuit=high)
