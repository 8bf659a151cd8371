"""What is studied: grids, arms, search space, prompts, datasets, metrics and claims. Pure values."""
