"""How long a test waits for what must come."""

# Under pytest's own limit for a test, so that what did not come is named. Not the time that it takes: on two processors with
# four tests at once a page that opens in one second was not there after thirty
PATIENCE_S = 600.0
# What a watchdog is told where it is to end a run that hangs: longer than a process takes to import all and begin, 27 s of a
# busy machine
SILENCE_S = 90
# The same for fake_run.py, which imports the standard library alone and says all that it will at once
SILENCE_OF_A_FAKE_S = 20
