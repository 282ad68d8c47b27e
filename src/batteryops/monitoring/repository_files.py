"""Writes the rules, dashboards and guide: `python -m batteryops.monitoring.repository_files`."""

import argparse
from pathlib import Path

from batteryops.errors import BatteryOpsError
from batteryops.files import replacing
from batteryops.monitoring import alert_rules, dashboards, guide
from batteryops.settings import Settings, load_settings


def files(settings: Settings) -> dict[str, str]:
    """The content of every generated file, by its path in the repository.

    Raises:
        SettingsError: where the dashboards' library is not installed.
    """
    return {
        "monitoring/alert-rules.yml": alert_rules.page(settings),
        **{f"monitoring/{name}": page for name, page in dashboards.pages(settings).items()},
        "docs/MONITORING_GUIDE.md": guide.page(settings),
    }


def main(arguments: list[str] | None = None) -> None:
    """Write the files under the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path, nargs="?", default=Path())
    root: Path = parser.parse_args(arguments).repository
    try:
        for name, content in files(load_settings(root / "config" / "production.yaml")).items():
            with replacing(root / name) as beside:
                beside.write_text(content, encoding="utf-8")
    except BatteryOpsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
