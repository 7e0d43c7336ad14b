"""What this machine is and whether it can run what is asked: host, accelerators of whatever make and their driver, image.

Imports no framework, so that `harness doctor` and the checks before a run start at once. Nothing here reads the
environment: callers that may (the CLI, execution.context) pass what is needed.
"""
