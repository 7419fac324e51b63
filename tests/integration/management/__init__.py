"""The management API in this process, over a real Postgres."""
