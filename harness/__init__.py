"""How a study is run and measured: plan, workers, measurement. torch lives in `harness.engine` alone."""
