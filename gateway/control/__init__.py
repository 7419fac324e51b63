"""The aiohttp applications: management API, status listener, the gateway's own public endpoints."""
