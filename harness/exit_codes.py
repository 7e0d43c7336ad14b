"""What every verb's exit code means."""

import errno

TARGET_MET = 0  # or, of a verb that does not train: all well
EPOCHS_SPENT = 1  # or the steps that --max-steps allowed, without the target; or: a check failed
USAGE = 2  # usage, configuration, data: what was asked for cannot be run
BROKEN = 5  # the run broke, or results are invalid
NOT_SUITABLE = 6  # no suitable device or driver, no engine, no disk
INTERRUPTED = 130

# Of a run_stop's reason where the code is EPOCHS_SPENT, which a crash or a library's exit ends with too: it begins with one
OF_EPOCHS, OF_STEPS = SPENT = ("epochs spent", "steps spent")
# Of one that diverged, where the code is BROKEN: by MLPerf's rules it did not converge, and broke in no other way
NOT_FINITE = "NotFinite"

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full, a quota, a limit on the size of files (ulimit -f)
