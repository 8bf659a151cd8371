"""The project's own torch code, run in worker processes: loading, adapters, training, generation."""
