"""Stories told through the wire: two gateway processes, one truth, and what a caller sees of every change."""
