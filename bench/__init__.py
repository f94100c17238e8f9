"""The way a batch takes, walked with a stopwatch: production code only, no copies of it."""
