"""The command `compress`: smaller models beside the full one, what each costs and buys."""

from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Features, Home, Json, Source, View, settings_of

if TYPE_CHECKING:
    from batteryops.evaluation.metrics import Interval
    from batteryops.lifecycle.compression import Compression


def compress(
    source: Source = None,
    features_file: Features = None,
    view: View = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            help="random, unseen_assets, unseen_schedules, later_cycles, or all; repeatable.",
            show_default="random and unseen_assets",
        ),
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Compare smaller models with the full one: accuracy, size and speed.

    Trees of depth 7, the five best features, float16 leaves, each alone and all together.
    """
    from batteryops.lifecycle.compression import compress_source

    settings = settings_of(config, home)
    with terminal.steps(quiet=as_json) as progress:
        found = compress_source(
            settings,
            features_file=features_file,
            source=source,
            view=view,
            protocols=protocol or (),
            progress=progress,
        )
    if as_json:
        terminal.print_json(found.to_json())
    else:
        show_accuracy(found)
        show_sizes(found)
        show_speed(found)
        show_notes(found)


def show_accuracy(found: "Compression") -> None:
    """Print what each variant achieves under each protocol."""
    rows: list[list[object]] = []
    for protocol in found.variants[0].evaluated:
        for position, one in enumerate(found.variants):
            metrics, change = one.evaluated[protocol].result.metrics, one.evaluated[protocol].change
            rows.append(
                [
                    terminal.styled("" if position else protocol, "bold"),
                    _broken(one.variant.name),
                    metrics.mae_ah,
                    f"{1000 * change.mae_ah:+.2g}" if change else "",
                    between(change.interval) if change else "",
                    metrics.rmse_ah,
                    metrics.r2,
                    f"{metrics.worst_asset} {metrics.worst_asset_mae_ah:.3g}",
                ]
            )
    terminal.table(
        f"accuracy, {found.prepared.view.name} v{found.prepared.view.version} on "
        f"{found.prepared.source}, {found.prepared.table.height} rows",
        [
            "protocol",
            "variant",
            "MAE Ah",
            "to full, mAh",
            "interval, mAh",
            "RMSE Ah",
            "R2",
            "worst asset, MAE Ah",
        ],
        rows,
        spare=["RMSE Ah", "worst asset, MAE Ah", "R2"],
    )


def show_sizes(found: "Compression") -> None:
    """Print how large trees and files are."""
    full = found.variants[0].sizes
    terminal.table(
        "size, fitted on all rows; kB of 1000 bytes, gzip at level 9",
        [
            "variant",
            "depth",
            "features",
            "leaves",
            "UBJ kB",
            "UBJ to full",
            "UBJ gzip",
            "ONNX kB",
            "ONNX to full",
            "ONNX gzip",
            "compact kB",
            "compact to full",
            "compact gzip",
        ],
        [
            [
                _broken(one.variant.name),
                one.shape.depth,
                len(one.shape.features),
                one.shape.leaves,
                kilobytes(one.sizes.booster),
                f"{one.sizes.booster / full.booster:.0%}",
                kilobytes(one.sizes.booster_gzip),
                kilobytes(one.sizes.onnx),
                f"{one.sizes.onnx / full.onnx:.0%}",
                kilobytes(one.sizes.onnx_gzip),
                kilobytes(one.sizes.compact),
                f"{one.sizes.compact / full.compact:.0%}",
                kilobytes(one.sizes.compact_gzip),
            ]
            for one in found.variants
        ],
        spare=["leaves", "features", "depth", "UBJ gzip", "ONNX gzip", "compact gzip"],
    )


def show_speed(found: "Compression") -> None:
    """Print how fast the variants answer."""
    terminal.table(
        "speed on one thread, variants in turns; row: ONNX Runtime, batches of 1000: XGBoost",
        [
            "variant",
            "row median µs",
            "row p99 µs",
            "row to full",
            "rows/s in batches",
            "time of a batch to full",
        ],
        [
            [
                _broken(one.variant.name),
                round(one.speed.row_median_us, 1),
                round(one.speed.row_p99_us, 1),
                round(one.speed.row_ratio, 3),
                round(one.speed.rows_per_s),
                round(one.speed.batch_ratio, 3),
            ]
            for one in found.variants
        ],
    )


def show_notes(found: "Compression") -> None:
    """Say which features were chosen, and what float16 leaves change and do not."""
    by_name = {one.variant.name: one for one in found.variants}
    few, half = by_name["five_features"], by_name["float16_leaves"]
    terminal.say(f"on all rows the five best features are {', '.join(few.features)}")
    for protocol, evaluated in few.evaluated.items():
        told = ", ".join(f"{name} {count}" for name, count in evaluated.chosen.items())
        folds = len(evaluated.result.folds)
        terminal.say(f"{protocol}, folds that chose each, of {folds}: {told}")
    terminal.say(
        f"float16 leaves moved a prediction by at most {half.rounding_ah:.2g} Ah, and can move "
        f"none by more than {half.rounding_bound_ah:.2g} Ah"
    )
    terminal.note(
        "UBJ and ONNX store every leaf as float32 whatever its value: float16 leaves only let "
        "them compress better; the compact form stores two bytes a leaf"
    )


def _broken(variant: str) -> str:
    """A variant's name that a narrow column may break at its parts."""
    return variant.replace("+", " + ")


def between(interval: "Interval") -> str:
    """Both ends in mAh, with their signs."""
    return f"{1000 * interval.low:+.2g} to {1000 * interval.high:+.2g}"


def kilobytes(size: int) -> float:
    """Bytes in units of 1000, to a tenth."""
    return round(size / 1000, 1)


__all__ = ["compress"]
