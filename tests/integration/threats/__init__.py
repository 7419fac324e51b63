"""Known ways of breaking in, each tried for real (tests/threats.py has the list)."""
