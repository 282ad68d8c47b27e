"""`python -m batteryops` is the `batteryops` command."""

from batteryops.cli.main import main

if __name__ == "__main__":
    main()
