"""What callers have used and what is left to them: arithmetic, who shares what, how nodes share it, and the meter.

Must not know: HTTP, sockets, SQL.
"""
