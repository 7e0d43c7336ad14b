"""A system's series over time and over drivers."""
