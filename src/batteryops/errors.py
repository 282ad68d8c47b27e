"""The package's own exceptions: each message says what was given, expected, and what to do."""


class BatteryOpsError(Exception):
    """Any refusal that a user can act on; the command line prints it and exits 1."""


class DataError(BatteryOpsError):
    """Data that cannot be read, or that breaks the contract of its table."""


class UnknownAssetError(DataError):
    """An asset without a profile: nothing says what its nominal capacity is."""


class SettingsError(BatteryOpsError):
    """A setting that is missing, unknown or out of its range."""


class PackageError(BatteryOpsError):
    """A model package that is incomplete, changed since it was written, or not computable here."""


class GateError(BatteryOpsError):
    """A model that may not go further because a gate said no."""


class RegistryError(BatteryOpsError):
    """A model version or alias that the registry does not have, or cannot give."""


class RecordsError(BatteryOpsError):
    """The prediction log or the ledger cannot be reached, or its chain is broken."""


class LeaseLostError(RecordsError):
    """A lease that is not its holder's any more: who held it must leave the work to another."""
