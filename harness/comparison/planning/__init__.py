"""Which arm runs when, and doing it: the schedule of a comparison, its hosts, and each run as it becomes due."""
