"""Alembic migrations, one folder per store; each revision says which one it follows."""
