"""Coverage-guided fuzzing of the HTTP engine, and the replay of all that it has found. See README.md."""
