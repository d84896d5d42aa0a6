"""When and where it runs: the Dagster code location, its jobs, schedule, sensor, and the runner of ``make run``."""
