"""How a run ends: what was raised on the way as an exit code and a reason, run_stop, the last look at the log, the last words.

A success is one when its log says so on the disk. Every other way out tries to leave a run_stop too, and where the log itself
is what failed, says so on the screen.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
import traceback
from collections.abc import Iterator

import psutil

from harness import clocks
from harness.contract import NotSuitable
from harness.execution import checkpoint, console, events, pauses, signals
from harness.execution.events import LogLost, keys
from harness.execution.moment import Moment
from harness.execution.run import Ending, NotFinite, Run
from harness.exit_codes import BROKEN, DISK_FULL, EPOCHS_SPENT, INTERRUPTED, NOT_SUITABLE, TARGET_MET, USAGE
from harness.system import cgroup

DYING_S = (
    1.0  # a killed launcher's threads end one by one, and the first to go sends the signal (signals.end_with_parent)
)
NO_THREAD = "can't start new thread"  # of Python's RuntimeError, which has nothing else to be known by


def of_error(run: Run, error: BaseException) -> Ending:
    """What an exception makes of the run. The traceback of one that nobody foresaw goes to the log.

    SystemExit is one of those: a library's exit(0) in the middle of a run would pass for a run that met its target.
    """
    if isinstance(error, KeyboardInterrupt):  # of code that has put Python's own handler back
        return Ending(INTERRUPTED, "SIGINT")
    if isinstance(error, NotSuitable):
        return Ending(NOT_SUITABLE, str(error))
    if isinstance(error, LogLost):
        return Ending(NOT_SUITABLE if error.errno in DISK_FULL else BROKEN, error.strerror or str(error))
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return Ending(NOT_SUITABLE, f"no room on the disk: {error}")
    if str(error) == NO_THREAD:
        return Ending(NOT_SUITABLE, _no_thread())
    if run.asking and isinstance(error, ValueError | OSError):
        return Ending(USAGE, str(error))
    # the folder of the picture may be gone; whether the log is there is looked at next
    after = run.ending is not None and isinstance(error, OSError)
    if not isinstance(error, NotFinite) and not after:
        tell(run, "".join(traceback.format_exception(error)))
    return Ending(BROKEN, f"{type(error).__name__}: {error}")


def _no_thread() -> str:
    of_user, of_group = resource.getrlimit(resource.RLIMIT_NPROC)[0], cgroup.most_processes()
    user = "unlimited" if of_user == resource.RLIM_INFINITY else f"{of_user:,}"
    group = "none is set" if of_group is None else f"{of_group:,}"
    return (
        f"no more threads can be started: a user may have so many, and processes (ulimit -u: {user}), or the control "
        f"group (pids.max: {group}); raise that (docker run --pids-limit, the job's options), or end what else runs"
    )


def stop(run: Run, ending: Ending) -> Ending:
    """run_stop; the ending stands from here on. LogLost where that takes a whole run's word away."""
    with run.stopping:
        if run.ending is not None:
            tell(run, f"after run_stop: {ending.reason}")
            return run.ending
        # by rank 0's clock alone, which stamps the log: another machine's may be set and hurts no figure
        if run.launch.rank == 0 and run.started is not None and ending.exit_code in (TARGET_MET, EPOCHS_SPENT):
            ending = _unless_set_back(run.started, ending)
        more: dict[str, str | float | list[int]] = {"reason": ending.reason} if ending.reason else {}
        if run.heartbeat is not None and (paused := run.heartbeat.end()):
            run.paused = paused
            more |= {"paused_s": round(max(paused.values()), 3), "paused_ranks": sorted(paused)}
        if run.started is not None:
            # beside the wall clock's stamps, so that a reader sees whether somebody set the clock meanwhile
            clocks.begin_a_time_slice()
            more["monotonic_s"] = round(run.started.seconds, 3)
            run.wall_ahead_s = run.log.wall_clock.wall_ahead_s if run.log.wall_clock is not None else 0.0
            if run.wall_ahead_s:
                more["wall_ahead_s"] = round(run.wall_ahead_s, 3)  # at whichever line it was most
        try:
            run.log.stop(keys.RUN_STOP, **{keys.STATUS: ending.status}, **more)
        except LogLost as lost:
            if ending.exit_code in (TARGET_MET, EPOCHS_SPENT):
                raise
            console.complain(f"the log has no run_stop: {lost.strerror}")
        run.ending = ending
        run.stopped_minutes = None if run.started is None else run.minutes
        return ending


def _unless_set_back(started: Moment, ending: Ending) -> Ending:
    """Of a run whose run_stop would be stamped before its run_start, which no reader takes for one: that it broke."""
    back_s = started.wall_s - time.time()
    if back_s <= 0:
        return ending
    return Ending(
        BROKEN,
        f"the machine's clock was set back while the run went on: it shows {back_s:.1f} s before run_start, and the run has no "
        "time; let chronyd or ntpd set it before a run",
    )


def left_to_launcher(run: Run, interrupted: signals.Interrupted) -> bool:
    """Whether the process that started all ranks will close the log: it alone knows why it ended this one."""
    launch = run.launch
    if launch.log is None or interrupted.signal != signals.FROM_LAUNCHER:
        return False
    if launch.launcher:
        return True
    until = time.monotonic() + DYING_S
    while os.getppid() == launch.parent and not _has_begun_to_die(launch.parent):
        if time.monotonic() > until:
            return True
        time.sleep(0.05)
    return False


def _has_begun_to_die(process: int) -> bool:
    """Whether its first thread has ended: the others of one that was killed may have to wait for a processor to end too."""
    try:
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # hidden from this process
        return False


def overdue(run: Run, interrupted: signals.Interrupted) -> None:
    """End the process of a run whose main thread does not come back.

    Not that of one which has ended: its model may be on the way to the disk, and any other code than its own would be wrong.
    """
    if run.ending is not None:
        console.complain(
            f"{interrupted} after run_stop: what comes after it is still being written; SIGKILL alone ends it"
        )
        return
    reason = f"{interrupted}, and it did not stop by itself within {signals.GRACE_S:g} s"
    _at_once(run, Ending(INTERRUPTED, reason), closed=not left_to_launcher(run, interrupted))


def lost(run: Run, reason: str) -> None:
    """End the process of a run that waits for a machine that is gone, in a call that takes no exception."""
    if run.ending is None:
        if run.launch.rank != 0:
            with contextlib.suppress(LogLost):
                run.own.plain(f"rank {run.launch.rank}: {reason}")
        _at_once(run, Ending(BROKEN, reason), closed=True)


def _at_once(run: Run, how: Ending, *, closed: bool) -> None:
    if closed and run.stopping.acquire(timeout=1):
        try:
            if run.ending is not None:  # meanwhile
                run.stopping.release()
                return
            run.log.stop(keys.RUN_STOP, **{keys.STATUS: keys.ABORTED, "reason": how.reason})
            _number_back(run)
        except OSError as lost:
            console.complain(str(lost.strerror))
    console.complain(f"{keys.ABORTED}: {how.reason}")
    os._exit(how.exit_code)


def settled(run: Run, ending: Ending) -> Ending:
    """The ending that the log bears out, once all of it should be on the disk."""
    log = run.log
    try:
        _number_back(run)
    except OSError as lost:  # no room for another name: how the run ended stays
        console.complain(f"{log.path}: the run never began, and its log keeps its number ({lost.strerror})")
    try:
        log.settle()
    except LogLost as lost:
        if ending.exit_code not in (TARGET_MET, EPOCHS_SPENT):
            console.complain(str(lost.strerror))
            return ending
        found = of_error(run, lost)
        try:
            log.stop(keys.RUN_STOP, **{keys.STATUS: found.status}, reason=found.reason)
        except LogLost:
            console.complain(found.reason)
        return found
    return ending


def _number_back(run: Run) -> None:
    """Of a run that never began to train, whatever ended it: without times it would spoil the results that it lies among.

    A log that a launcher keeps is left to it until it is closed.
    """
    log = run.log
    if log.path is None or not run.asking or not log.path.exists():
        return
    if run.launch.log is None or events.says(log.path, keys.RUN_STOP):
        log.path = events.refused(log.path)


def conclude(run: Run, ending: Ending) -> Ending:
    """What the user reads last. run_stop has said how the run ended, whether or not the log takes these lines too; returns
    another ending where it is no longer on the disk.
    """
    lost = ""
    for line in _last_words(run, ending):
        try:
            if not lost:
                run.log.plain(line)
        except LogLost as error:
            lost = str(error.strerror)
            try:
                run.log.settle()
            except LogLost as gone:
                console.complain(str(gone.strerror))
                return of_error(run, gone) if ending.exit_code in (TARGET_MET, EPOCHS_SPENT) else ending
        run.screen.show(line)
    if lost:
        console.complain(f"warning: the log has not all of these last lines: {lost}")
    return ending


def _last_words(run: Run, ending: Ending) -> Iterator[str]:
    log, history = run.log, run.history
    if run.stopped_minutes is not None:
        yield f"{run.stopped_minutes:.2f} minutes from run_start to run_stop"
    if run.paused:
        yield pauses.told(run.paused)
    if ending.reason:
        yield f"{ending.status}: {ending.reason}"
    else:
        yield f"target met: {history.metric} {history.best:.4f}, asked for {history.target:g}"
    yield f"log      {log.path}"
    if run.picture is not None:
        yield f"picture  {run.picture}"
    kept = run.request.checkpoint_dir
    if kept is not None and run.has_model and (model := checkpoint.to_use(kept)) is not None:
        but = (
            f" (of an earlier epoch: that of epoch {run.unsaved} could not be kept)" if run.unsaved is not None else ""
        )
        yield f"model    {model}{but}"
    elif kept is not None and run.unsaved is None and not run.has_model:
        yield "model    none: the run ended before the end of its first epoch, which is when one is kept"
    yield f"ENDING TIMING RUN AT {clock(time.time())}"
    if ending.status != keys.SUCCESS:
        return
    if run.resumed_after is not None:
        yield f"no RESULT: the run went on after epoch {run.resumed_after}, and its time is that of a part"
    elif ahead_s := run.wall_ahead_s:
        yield (
            f"no RESULT: the machine's clock went {ahead_s:+.1f} s beside the time that passed, at most: somebody set it while "
            "the run went on, or the machine slept"
        )
    else:
        name, org = run.configuration.keyword.upper(), run.configuration.submission.org
        yield f"RESULT,{name},,{run.called.seconds:.0f},{org},{clock(run.called.wall_s)}"


def tell(run: Run, text: str) -> None:
    """On the screen and in the log; on the screen alone where the log does not take it."""
    try:
        run.screen.say(text)
    except LogLost:
        console.complain(text)


def clock(seconds: float) -> str:
    """As MLPerf's scripts print it."""
    return time.strftime("%Y-%m-%d %I:%M:%S %p", time.localtime(seconds))
