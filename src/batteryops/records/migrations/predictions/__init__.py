"""The prediction log's migrations."""
