"""A comparison as people and programs read it: terminal, page, JSON, JUnit, Markdown, and a bundle for a driver's vendor."""
