"""Who is calling, and may they: secrets, credentials, principals, admission. Knows no sockets and no HTTP library.

Admission is the door to the rest of these; nobody else looks anything up:

    admission.py     the decision, by what is remembered: warm, or after a lookup
    entries.py       what is remembered of one digest
    held.py          the entries that this process holds
    flights.py       one lookup per digest, however many wait for it
    lookup.py        how a key is looked up: the order of the tiers, and what is left for other nodes
    token_lookup.py  how a token is: what it says, what it is bound to, its one use
    questions.py     how Postgres is asked: not while it has just failed, and again what a change has overtaken
    appraisal.py     from what a store has told to an entry
    sources.py       what the view, the stores and the judge of tokens promise
"""
