"""That the benchmark measures what it says."""
