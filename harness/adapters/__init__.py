"""The edges to what is foreign: NVML, Optuna, datasets, the host. Foreign errors are translated here."""
