"""The commands, through both of their doors."""
