"""Postgres, the truth. All SQL lives in this package."""
