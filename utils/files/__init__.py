"""Reading and writing files that others made."""
