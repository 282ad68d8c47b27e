"""The database: predictions and the ledger."""
