"""What a study shows: evidence, statistics, verdict, tables and figures, from the records alone."""
