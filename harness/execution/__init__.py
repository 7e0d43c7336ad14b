"""Inside one timed run: the order of events, the log, ranks and devices, seeds, throughput. Knows no model."""
