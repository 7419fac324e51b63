"""What size costs: millions of keys, many shared entries, open connections, tenants and nodes.

`population` fills the database; `tiers`, `tenants`, `connections`, `fleet` and `crowd` measure a part each; `command`
runs them and writes the tables. `holder` is a process that holds connections.
"""
