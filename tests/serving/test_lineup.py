"""Who answers which vehicle while a challenger stands beside the champion."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.models.package import ModelPackage
from batteryops.serving.lineup import Lineup, Mode, Routing
from batteryops.serving.live_model import LiveModel, ServedModel
from batteryops.settings import Settings

VEHICLES = [f"EV-{number:04}" for number in range(4000)]


@pytest.fixture(scope="module")
def models(package: ModelPackage, settings: Settings) -> tuple[LiveModel, LiveModel]:
    cache = settings.serving.cache
    return (
        LiveModel(ServedModel(package, "3", "champion"), cache),
        LiveModel(ServedModel(package, "4", "challenger"), cache),
    )


def lineup(models: tuple[LiveModel, LiveModel], mode: Mode, share: float = 0.2) -> Lineup:
    return Lineup(*models, Routing(mode, share, "3 against 4"), 1)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_the_challengers_share_is_about_what_was_asked(share: float) -> None:
    n = len(VEHICLES)
    routing = Routing("split", share, "3 against 4")
    got = sum(map(routing.is_challengers, VEHICLES))
    spread = (n * share * (1 - share)) ** 0.5  # of a binomial distribution
    assert abs(got - n * share) < 4 * spread


@given(vehicle_id=st.text(), salt=st.text())
def test_nobody_is_the_challengers_at_share_0_and_everybody_at_1(
    vehicle_id: str, salt: str
) -> None:
    assert not Routing("split", 0.0, salt).is_challengers(vehicle_id)
    assert Routing("split", 1.0, salt).is_challengers(vehicle_id)


@given(vehicle_id=st.text(), share=st.floats(0, 1), more=st.floats(0, 1))
def test_with_a_larger_share_no_vehicle_goes_back_to_the_champion(
    vehicle_id: str, share: float, more: float
) -> None:
    small, large = sorted((share, more))
    if Routing("split", small, "s").is_challengers(vehicle_id):
        assert Routing("split", large, "s").is_challengers(vehicle_id)


def test_another_process_decides_the_same() -> None:
    code = (
        "from batteryops.serving.lineup import Routing\n"
        "rule = Routing('split', 0.2, '3 against 4')\n"
        "print([rule.is_challengers(f'EV-{n:04}') for n in range(50)])"
    )
    said = subprocess.run(  # noqa: S603  # own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    rule = Routing("split", 0.2, "3 against 4")
    assert said.strip() == str([rule.is_challengers(one) for one in VEHICLES[:50]])


def test_another_comparison_gives_the_challenger_other_vehicles() -> None:
    one, other = (
        {name for name in VEHICLES if Routing("split", 0.5, salt).is_challengers(name)}
        for salt in ("3 against 4", "3 against 5")
    )
    both = len(one & other) / len(one)
    assert 0.4 < both < 0.6  # independent, not the same


def test_in_a_split_each_vehicle_has_its_model(models: tuple[LiveModel, LiveModel]) -> None:
    split = lineup(models, "split")
    for name in VEHICLES[:100] * 2:
        expected = models[1] if split.routing.is_challengers(name) else models[0]
        assert split.answering(name) is expected
    assert split.shadow is None


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_otherwise_the_champion_answers_everybody(
    models: tuple[LiveModel, LiveModel], mode: Mode
) -> None:
    other = lineup(models, mode, 1.0)
    assert {other.answering(name) for name in VEHICLES[:100]} == {models[0]}
    assert other.shadow is (models[1] if mode == "shadow" else None)


def test_a_version_is_found_while_it_is_in_service(models: tuple[LiveModel, LiveModel]) -> None:
    both = lineup(models, "split")
    assert both.models() == list(models)
    assert both.find("4") is models[1]
    assert both.find("5") is None
    alone = Lineup(models[0], None, Routing("off", 0.0, ""), 1)
    assert alone.models() == [models[0]]
    assert alone.answering("EV-1") is models[0]
