"""Getting a run onto hardware: ranks, trials, containers."""
