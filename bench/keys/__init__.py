"""What only a gateway for keys meets: many keys, tokens, floods of bad ones, changes, streams.

stage    nodes with routes, tenants or tokens in number, in front of stores of their own
warm     what a request costs that no store is asked for, and what does not make it dearer
cold     keys that the node does not hold: through Redis, through Postgres
floods   good traffic beside masses of bad keys
changes  good traffic while other keys are edited
streams  a thousand streams of events
command  all of it, and the tables
"""
