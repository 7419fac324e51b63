"""What each proxy does with doubtful, rare and hostile HTTP: a table measured by running them.

command           `python -m bench behaviours`: every case against every proxy, then the table
proxies           the four proxies, each with an origin of its own; their configurations lie in `config/`
wire              a raw connection, and the origin that records what arrives
reading           requests and replies out of bytes, forgivingly
verdicts          the closed set of words, and what makes a case earn one
stage             one proxy and its origin, and the common ways to play a case
*_cases           the cases: framing, heads, targets, identity, connections, replies, timing
table             Markdown between two markers of `docs/http.md`, JSON in `results/`
"""
