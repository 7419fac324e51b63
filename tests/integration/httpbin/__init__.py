"""A real API that nobody here wrote, behind the gateway: the `httpbin` package under gunicorn."""
