"""What a cell is made of: open-circuit curve, circuit elements, limits and ageing per chemistry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from batteryops.errors import DataError
from batteryops.telemetry.ageing import NAUMANN, SCHMALSTIEG, AgeingLaw, FloatArray


def nmc_open_circuit(soc: FloatArray) -> FloatArray:
    """Open-circuit voltage of an NMC/graphite cell, 2.5 V empty to 4.2 V full.

    U(z) = U_pos(y) - U_neg(x) with the electrodes' fits of C.-H. Chen et al., J. Electrochem. Soc.
    167 (2020) 080534 (LG M50), and stoichiometries x from 0.0263 to 0.9106 and y from 0.8540 down
    to 0.2638 as z goes from 0 to 1, which is the span of that cell between 2.5 and 4.2 V.

    Args:
        soc: state of charge z, 0 to 1, any shape.

    Examples:
        >>> import numpy as np
        >>> [round(float(u), 2) for u in nmc_open_circuit(np.array([0.0, 0.5, 1.0]))]
        [2.5, 3.75, 4.2]
    """
    x = 0.0263 + (0.9106 - 0.0263) * soc
    y = 0.8540 + (0.2638 - 0.8540) * soc
    positive = (
        4.4875
        - 0.8090 * y
        - 0.0428 * np.tanh(18.5138 * (y - 0.5542))
        - 17.7326 * np.tanh(15.7890 * (y - 0.3117))
        + 17.5842 * np.tanh(15.9308 * (y - 0.3120))
    )
    negative = (
        0.2482
        + 1.9793 * np.exp(-39.3631 * x)
        - 0.0909 * np.tanh(29.8538 * (x - 0.1234))
        - 0.04478 * np.tanh(14.9159 * (x - 0.2769))
        - 0.0205 * np.tanh(30.4444 * (x - 0.6103))
    )
    voltage: FloatArray = positive - negative
    return voltage


def lfp_open_circuit(soc: FloatArray) -> FloatArray:
    """Open-circuit voltage of an LFP/graphite cell, 2.5 V empty to 3.6 V full.

    U(z) = U_pos(y) - U_neg(x) with the electrodes' fits of M. Safari and C. Delacourt, J.
    Electrochem. Soc. 158 (2011) A562. The graphite's stoichiometry x goes from 0.0085 to 0.78, as
    M. Schimpe et al., J. Electrochem. Soc. 165 (2018) A181 found it in an LFP cell; the positive's
    y, from 0.95800 down to 0.02287, is set so that the cell spans 2.5 to 3.6 V.

    Args:
        soc: state of charge z, 0 to 1, any shape.

    Examples:
        The plateau lies far below the 3.4 V at which an NMC cell is nearly empty:

        >>> import numpy as np
        >>> [round(float(u), 2) for u in lfp_open_circuit(np.array([0.0, 0.3, 0.9, 1.0]))]
        [2.5, 3.28, 3.35, 3.6]
    """
    x = 0.0085 + (0.78 - 0.0085) * soc
    y = 0.95800 + (0.02287 - 0.95800) * soc
    positive = (
        3.4323
        - 0.8428 * np.exp(-80.2493 * (1.0 - y) ** 1.3198)
        - 3.2474e-6 * np.exp(20.2645 * (1.0 - y) ** 3.8003)
        + 3.2482e-6 * np.exp(20.2646 * (1.0 - y) ** 3.7995)
    )
    negative = (
        0.6379
        + 0.5416 * np.exp(-305.5309 * x)
        + 0.044 * np.tanh(-(x - 0.1958) / 0.1088)
        - 0.1978 * np.tanh((x - 1.0571) / 0.0854)
        - 0.6875 * np.tanh((x + 0.0117) / 0.0529)
        - 0.0175 * np.tanh((x - 0.5692) / 0.0875)
    )
    voltage: FloatArray = positive - negative
    return voltage


_POSITIVE: Final = (
    "nominal_ah",
    "full_ah",
    "r0_ohm",
    "r1_ohm",
    "c1_farad",
    "taper_c_rate",
    "heat_capacity_j_k",
    "heat_transfer_w_k",
)


@dataclass(frozen=True, slots=True)
class Chemistry:
    """A kind of cell: what all cells of it share when new.

    Args:
        name: as fleets name it.
        asset_prefix: what the names of its vehicles begin with.
        open_circuit: open-circuit voltage (V) over state of charge (0 to 1), rising.
        nominal_ah: capacity that its maker states, Ah; currents are given as multiples of it.
        full_ah: charge between state of charge 0 and 1 when new, Ah; no real discharge gets it all.
        r0_ohm: ohmic resistance at 25 degC.
        r1_ohm: resistance of the RC pair at 25 degC.
        c1_farad: capacitance of the RC pair.
        r0_activation_j_mol: Arrhenius activation energy of `r0_ohm`.
        r1_activation_j_mol: Arrhenius activation energy of `r1_ohm`.
        discharge_cutoff_v: terminal voltage that ends a discharge.
        charge_cutoff_v: terminal voltage at which a charge turns to constant voltage.
        taper_c_rate: current over nominal capacity at which constant voltage ends.
        heat_capacity_j_k: of the whole cell.
        heat_transfer_w_k: from the cell to the air around it.
        ageing: how it ages.

    Raises:
        DataError: when an element is not positive, or the curve does not span the two cutoffs, so
            that a discharge would have no end.
    """

    name: str
    asset_prefix: str
    open_circuit: Callable[[FloatArray], FloatArray]
    nominal_ah: float
    full_ah: float
    r0_ohm: float
    r1_ohm: float
    c1_farad: float
    r0_activation_j_mol: float
    r1_activation_j_mol: float
    discharge_cutoff_v: float
    charge_cutoff_v: float
    taper_c_rate: float
    heat_capacity_j_k: float
    heat_transfer_w_k: float
    ageing: AgeingLaw

    def __post_init__(self) -> None:
        """Refuse a cell that could not be cycled."""
        for field in _POSITIVE:
            if not getattr(self, field) > 0:
                raise DataError(
                    f"chemistry {self.name}: {field} is {getattr(self, field)}, expected above 0"
                )
        empty, full = (float(u) for u in self.open_circuit(np.array([0.0, 1.0])))
        if not empty <= self.discharge_cutoff_v < self.charge_cutoff_v <= full:
            raise DataError(
                f"chemistry {self.name}: the open-circuit curve spans {empty:.3f} to {full:.3f} V; "
                f"expected it to span the cutoffs, {self.discharge_cutoff_v} and "
                f"{self.charge_cutoff_v} V"
            )


# Circuit elements are of the size of 2 Ah 18650 energy cells: about 60 mOhm of direct-current
# resistance, a relaxation of about a minute. Activation energies: the electrolyte's conductivity
# for R0 (17.1 kJ/mol) and the electrodes' charge transfer for R1 (43.6 to 53.4 kJ/mol, the lower
# one), M. Ecker et al., J. Electrochem. Soc. 162 (2015) A1836. Thermal: 45 g at about
# 1 J/(g K); about 4e-3 m2 at about 12 W/(m2 K), still air.
CHEMISTRIES: Final[Mapping[str, Chemistry]] = MappingProxyType(
    {
        "NMC": Chemistry(
            name="NMC",
            asset_prefix="EV-",
            open_circuit=nmc_open_circuit,
            nominal_ah=2.0,
            full_ah=2.15,
            r0_ohm=0.036,
            r1_ohm=0.020,
            c1_farad=2500.0,
            r0_activation_j_mol=17_100.0,
            r1_activation_j_mol=43_600.0,
            discharge_cutoff_v=2.7,
            charge_cutoff_v=4.2,
            taper_c_rate=0.05,
            heat_capacity_j_k=45.0,
            heat_transfer_w_k=0.05,
            ageing=SCHMALSTIEG,
        ),
        "LFP": Chemistry(
            name="LFP",
            asset_prefix="EV-LFP-",
            open_circuit=lfp_open_circuit,
            nominal_ah=2.0,
            full_ah=2.15,
            r0_ohm=0.030,
            r1_ohm=0.018,
            c1_farad=2500.0,
            r0_activation_j_mol=17_100.0,
            r1_activation_j_mol=43_600.0,
            discharge_cutoff_v=2.5,
            charge_cutoff_v=3.6,
            taper_c_rate=0.05,
            heat_capacity_j_k=45.0,
            heat_transfer_w_k=0.05,
            ageing=NAUMANN,
        ),
    }
)
"""The cells that fleets are made of, by name."""
