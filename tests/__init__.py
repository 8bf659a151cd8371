"""The test-suite. A package, so that no other distribution's stray `tests` can stand in for it."""
