"""The revision rule: what a node may still believe, and when a change has reached every node."""
