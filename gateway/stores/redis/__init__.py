"""Redis: what the nodes leave for each other, and how they tell each other of changes. Never the truth."""
