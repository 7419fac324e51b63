"""Coverage-guided fuzzing of every parser, and the replay of all that it has found. See README.md."""
