"""What was seen: the record of every run, its store, and the predictions behind every score."""
