"""From the figures of two arms to a verdict: metrics, statistics, a machine's own noise."""
