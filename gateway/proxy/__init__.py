"""Bytes in, bytes out. The story of a request stands in `exchange.py`. Never meets a store."""
