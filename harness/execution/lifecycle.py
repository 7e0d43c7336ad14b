"""One timed run from its first event to its last: the sole author of their order.

    init_start, open, warm_up, init_stop | run_start, load_data, epochs and evaluations, run_stop | fingerprint, picture

Every way out ends in one run_stop with its status and in the exit code that belongs to it: 0 target met, 1 epochs (or
the steps that --max-steps allowed) spent without it, 2 what the user asked for cannot be run, 5 the run broke, 6 no suitable
device, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time

from harness import clocks
from harness.config import Configuration
from harness.contract import Context, DataSummary, NotSuitable, Session
from harness.execution import (
    bits,
    checkpoint,
    console,
    context,
    description,
    device_memory,
    ending,
    events,
    given,
    meeting,
    pace,
    picture,
    preparation,
    process_group,
    signals,
    slowest,
    telemetry,
    throughput,
)
from harness.execution.budget import Budget
from harness.execution.events import EventLog, LogLost, keys
from harness.execution.learning_curve import Evaluated, LearningCurve, Loss
from harness.execution.moment import Moment, WallClock
from harness.execution.pace import Pace
from harness.execution.pauses import Heartbeat
from harness.execution.run import Ending, NotFinite, Run
from harness.exit_codes import EPOCHS_SPENT, INTERRUPTED, OF_EPOCHS, OF_STEPS, TARGET_MET
from harness.request import Request


def execute(configuration: Configuration, request: Request, launch: context.Launch) -> int:
    """Run one rank; returns the exit code. Rank 0 writes the log. ValueError when no log can be opened."""
    with signals.as_exceptions() as guard, signals.later():
        own = _open(request, launch)
        log = own if launch.rank == 0 else EventLog(None)
        screen = console.for_rank(launch.rank, log.plain)
        rules, asked = configuration.rules, configuration.run
        history = LearningCurve(rules.metric, asked.target, asked.epochs, rules.lower_is_better)
        run = Run(configuration, request, launch, log, own, screen, history)
        guard.overdue = functools.partial(ending.overdue, run)
        try:
            with signals.stacks_on_request(own.descriptor), telemetry.beside(log.path, configuration.run.device):
                how = _ending(run)
                guard.end()
            how = ending.settled(run, how)
        finally:
            screen.close()  # so that the last line is the result, not a bar
        how = ending.conclude(run, how)
        own.close()
    return how.exit_code


def refuse(request: Request, reason: str) -> None:
    """Leave word of a run that its configuration does not allow to begin; where that cannot be done it is said, and no more."""
    try:
        log = EventLog.create(request.folder, request.number)
        log.plain(reason)
        log.stop(keys.RUN_STOP, **{keys.STATUS: keys.ABORTED, "reason": reason})
        log.close()
        assert log.path is not None
        events.refused(log.path)
    except (ValueError, OSError) as lost:
        console.complain(f"warning: no word of the refusal is left: {lost}")


def _open(request: Request, launch: context.Launch) -> EventLog:
    if launch.rank == 0 and launch.log is None:
        return EventLog.create(request.folder, request.number)
    try:
        return EventLog(launch.log)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and launch.rank != 0 and launch.parent is not None:
            raise NotSuitable(
                f"rank {launch.rank} came when rank 0 had ended the run already, before it began; rank 0 says why"
            ) from error
        raise ValueError(
            f"HARNESS_LOG names {launch.log}, which is no log that a launcher has made ({error.strerror}); unset it to run "
            "without one"
        ) from error


def _ending(run: Run) -> Ending:
    """The whole run; what is raised on the way becomes an Ending. After run_stop nothing changes it any more."""
    try:
        with signals.at_once():
            return _train(run)
    except signals.Interrupted as interrupted:
        how = Ending(INTERRUPTED, str(interrupted))
        if run.ending is None and ending.left_to_launcher(run, interrupted):
            run.ending = how
            return how
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - every way out ends in a run_stop
        how = ending.of_error(run, error)
    if run.launch.rank != 0:
        with contextlib.suppress(LogLost):
            run.own.plain(f"rank {run.launch.rank}: {how.reason}")
        console.complain(f"rank {run.launch.rank}: {how.reason}")
    return ending.stop(run, how)


def _train(run: Run) -> Ending:
    configuration, request, log = run.configuration, run.request, run.log
    run.screen.say(f"{configuration.benchmark.name}, configuration {configuration.name}, log {log.path}")
    run.screen.say(f"STARTING TIMING RUN AT {ending.clock(run.called.wall_s)}")
    description.submission(log, configuration, request.max_steps, deterministic=request.deterministic)
    log.point(keys.CACHE_CLEAR, run.launch.caches_cleared)
    for reason in description.not_for_submission(configuration, caches_cleared=run.launch.caches_cleared):
        run.screen.say(f"not to be submitted: {reason}")
    with preparation.with_checkpoints(run):
        return _from_init(run, preparation.resumed(run))


def _from_init(run: Run, resumed: checkpoint.Checkpoint | None) -> Ending:
    configuration, request, log = run.configuration, run.request, run.log
    here, bound = preparation.prepare(run, resumed)

    began = Moment.fresh()
    run.own.start(keys.INIT_START)  # of every rank, as in the published logs, whose readers count accelerators by them
    patience_s = meeting.patience_s(request.rendezvous_timeout)
    ended = contextlib.ExitStack()
    with ended, process_group.joined(here, patience_s) as store, contextlib.ExitStack() as closing:
        here, told = preparation.agree(run, here, bound, resumed)
        for name, value in told.items():
            log.point(name, value)
        log.point(keys.SEED, here.seed)
        lost = functools.partial(ending.lost, run)
        closing.enter_context(process_group.watched_machines(store, here, run.ranks, lost))
        session = _opened(configuration, here, closing)
        session.warm_up()
        description.opened(log, configuration, session)
        run.pace = Pace.of(session.properties(), run.launch.parent)
        if here.rank == 0:  # the others would look at the same machine for nothing
            machine = context.this_machine(configuration.run.device, len(bound.found))
            description.origin(log, machine, here.device, run.ranks, configuration.benchmark_name)
        process_group.barrier(here)
        _stop_init(run, began)
        run.counts_memory = device_memory.count_from_here(here.device)

        run.heartbeat = Heartbeat(here.rank, store)
        closing.callback(run.heartbeat.end)
        started = Moment.fresh()  # before the line, which a slow disk may keep waiting after its stamp
        log.start(keys.RUN_START)
        run.started, log.wall_clock = started, WallClock(started)
        found = given.summary(here, session.load_data())
        _say_data(run, found)
        budget = Budget(found, request.max_steps)
        first_epoch = 1
        if resumed is not None:
            if budget.spent(resumed.epoch):
                raise ValueError(
                    f"the checkpoint is after {resumed.epoch * found.steps_per_epoch} steps, which leaves none of --max-steps "
                    f"{request.max_steps}: they count from the beginning of the whole run"
                )
            session.restore(resumed.state)
            if here.rank == 0:
                checkpoint.keep_best(run.checkpoints, resumed)
            run.best_kept, run.has_model = resumed.best, True
            first_epoch, run.resumed_after = resumed.epoch + 1, resumed.epoch
            log.point("resumed_from_epoch", resumed.epoch)
        run.asking = False
        run.screen.started(run.history, budget.images(run.history.epochs), budget.images(first_epoch - 1))
        how = _epochs(run, here, session, first_epoch, budget)
        ended.enter_context(signals.later())  # a success is one with its model, whose ranks have parted
        how = ending.stop(run, how)
        _after(run, here, session, how)
    return how


def _stop_init(run: Run, began: Moment) -> None:
    """init_stop, with what init took by the clock that nobody sets. A wall clock that was set meanwhile makes no false run:
    that has yet to begin.
    """
    clocks.begin_a_time_slice()
    ahead_s, seconds = began.wall_ahead_s, began.seconds
    told = {"wall_ahead_s": round(ahead_s, 3)} if ahead_s else {}
    run.log.stop(keys.INIT_STOP, monotonic_s=round(seconds, 3), **told)
    run.screen.say(f"init took {seconds:.1f} s")
    if ahead_s:
        run.screen.say(
            f"warning: the machine's clock went {ahead_s:+.1f} s beside the time that init took: somebody set it, or the "
            "machine slept. The log's stamps of init are apart by as much, and MLPerf's checker allows 20 minutes between "
            "them; the run itself begins now"
        )
    if clocks.before_mlperf(time.time()):
        run.screen.say(
            f"warning: the machine's clock stands at {ending.clock(time.time())}, before MLPerf had rules: the log is no "
            "official result; let chronyd or ntpd set it before a run"
        )


def _say_data(run: Run, found: DataSummary) -> None:
    """What load_data found, in the log and, where it is a reason not to go on, on the screen."""
    run.log.point(keys.TRAIN_SAMPLES, found.train_samples)
    run.log.point(keys.EVAL_SAMPLES, found.eval_samples)
    run.log.point("steps_per_epoch", found.steps_per_epoch)  # train_samples may be more than these train on
    for name, value in found.more.items():
        run.log.point(name, value)
    if both := found.eval_samples_trained_on:
        run.log.point("eval_samples_trained_on", both)
        run.screen.say(
            f"warning: {both} of {found.eval_samples} images to evaluate are trained on too: the quality says nothing of "
            "images that are new, and the run is no result"
        )
    for remark in found.remarks:
        run.screen.say(f"warning: {remark}")


def _opened(configuration: Configuration, here: Context, closing: contextlib.ExitStack) -> Session:
    """The benchmark's session, which `closing` closes: one too that lacks something else."""
    opened = configuration.benchmark.open(configuration.tables, here)
    if callable(close := getattr(opened, "close", None)):
        closing.callback(close)
    return given.session(opened)


def _after(run: Run, here: Context, session: Session, how: Ending) -> None:
    """What comes off the clock, after run_stop: fingerprint, picture, and the checkpoint of the epoch that met the target."""
    configuration, request, log = run.configuration, run.request, run.log
    try:
        if run.counts_memory and (most := device_memory.most_bytes(here.device)) is not None:
            log.point("peak_memory_bytes", most)
        if log.path is not None:
            log.point("data_fingerprint", given.fingerprint(session.fingerprint()))
            title = f"{configuration.name}: {how.reason or f'target met in {run.stopped_minutes:.1f} minutes'}"
            drawn = log.path.with_suffix(".png")
            picture.save(drawn, run.history, session.panels(picture.PANELS), title)
            run.picture = drawn
    finally:
        try:
            if run.history.met and request.checkpoint_dir is not None:
                _save(run, here, session, run.history.evaluations[-1].epoch)
        finally:
            # torchrun ends the others as soon as one rank has ended with another code than 0: nobody leaves before rank 0
            process_group.barrier(here)


def _epochs(run: Run, here: Context, session: Session, first_epoch: int, budget: Budget) -> Ending:
    """The outer loop: epochs in blocks that end with an evaluation, until the target is met or epochs or steps are spent."""
    log, history, evaluate_after = run.log, run.history, run.configuration.run.evaluate_after_epochs
    block = first_epoch
    for epoch in range(first_epoch, history.epochs + 1):
        if epoch == block:
            count = next(each for each in evaluate_after if each >= epoch) - epoch + 1
            log.start(keys.BLOCK_START, **{keys.FIRST_EPOCH_NUM: epoch, keys.EPOCH_COUNT: count})
        _epoch(run, here, session, epoch, budget)
        if budget.cut(epoch) is not None:
            return _steps_spent(run)
        if epoch in evaluate_after:
            log.stop(keys.BLOCK_STOP, **{keys.FIRST_EPOCH_NUM: block})
            _evaluate(run, here, session, epoch)
            if history.met:
                return Ending(TARGET_MET, "")
            block = epoch + 1
        if run.request.checkpoint_dir is not None:
            _save(run, here, session, epoch)
        if budget.spent(epoch):
            return _steps_spent(run)
    best = history.best if run.best_kept is None else run.best_kept  # where it went on, of the epochs before too
    return Ending(
        EPOCHS_SPENT,
        f"{OF_EPOCHS}: {history.metric} {best:.4f} after {history.epochs} epochs, target {history.target:g}",
    )


def _steps_spent(run: Run) -> Ending:
    asked, history = run.request.max_steps, run.history
    best = history.best_evaluation
    reached = f"{history.metric} {best.quality:.4f} after epoch {best.epoch}, " if best is not None else ""
    if run.best_kept is not None and (best is None or best.quality != run.best_kept):  # of the run that it went on with
        reached = f"{history.metric} {run.best_kept:.4f} by epoch {run.resumed_after}, "
    return Ending(EPOCHS_SPENT, f"{OF_STEPS}: {asked} of --max-steps {asked}, {reached}target {history.target:g}")


def _epoch(run: Run, here: Context, session: Session, epoch: int, budget: Budget) -> None:
    """A whole epoch, or the first steps of the one that --max-steps cuts: like an interrupted one it has no epoch_stop."""
    cut, train_samples = budget.cut(epoch), budget.data.train_samples
    due = budget.data.steps_per_epoch if cut is None else cut
    log, epoch_num = run.log, {keys.EPOCH_NUM: epoch}
    log.start(keys.EPOCH_START, **epoch_num)
    clock, steps, loss_sum = throughput.EpochClock(), 0, 0.0
    for interval in map(given.interval, session.train_epoch(epoch, cut)):
        rate = clock.interval(interval)
        steps += interval.steps
        loss_sum += interval.loss * interval.steps
        place = epoch - 1 + min(1.0, clock.images / train_samples)
        run.history.losses.append(Loss(place, interval.loss, rate.images_per_s))
        statistics = {
            "loss": interval.loss if math.isfinite(interval.loss) else str(interval.loss),
            "learning_rate": interval.learning_rate,
            "throughput": rate.images_per_s,
        }
        log.point("tracked_stats", statistics, step=steps, **epoch_num)
        if run.request.deterministic:
            bits.log_step(log, session, (epoch - 1) * budget.data.steps_per_epoch + steps)
        if not math.isfinite(interval.loss):
            raise NotFinite(
                f"the loss is {interval.loss} in epoch {epoch} by step {steps}: a smaller learning rate or a longer warm-up "
                "is the usual fix; fp16 may need bf16; and the data may be at fault where it happens at once"
            )
        run.screen.interval(epoch, interval, rate)
        if run.pace is not None and (slow := run.pace.look(rate)) is not None:
            log.point("slowed_down", slow, step=steps, **epoch_num)
            run.screen.say(pace.told(slow))
    if cut is None:
        log.stop(keys.EPOCH_STOP, **epoch_num)
    if not 0 < steps == due:
        raise RuntimeError(f"epoch {epoch} had {steps} steps where {due} were due")
    whole = clock.epoch()
    log.point("throughput", whole.images_per_s, **epoch_num)
    log.point("data_wait_share", whole.data_wait_share, **epoch_num)
    description.phases(log, whole.phases, **epoch_num)
    if here.world_size > 1 and not session.properties().get("ranks_meet_in_step"):
        found = slowest.compared(process_group.gathered(here, 1000 * whole.own_seconds / steps), run.ranks.hosts)
        log.point("step_ms_by_rank", found.logged, **epoch_num)
        if found.stands_out:
            run.screen.say(f"epoch {epoch}: {found}")
    run.screen.epoch(epoch, loss_sum / steps, whole, cut)


def _evaluate(run: Run, here: Context, session: Session, epoch: int) -> None:
    log, epoch_num = run.log, {keys.EPOCH_NUM: epoch}
    log.start(keys.EVAL_START, **epoch_num)
    start = time.perf_counter()
    quality = given.quality(here, session.evaluate(epoch), epoch, run.configuration.rules, run.history.target)
    description.phases(log, session.phase_seconds(), **epoch_num)
    log.point(keys.EVAL_ACCURACY, quality, **epoch_num)
    log.stop(keys.EVAL_STOP, **epoch_num)
    evaluated = Evaluated(epoch, quality, time.perf_counter() - start, run.minutes)
    run.history.evaluations.append(evaluated)
    run.screen.evaluated(evaluated)


def _save(run: Run, here: Context, session: Session, epoch: int) -> None:
    folder, state = run.checkpoints, session.state()
    last = run.history.evaluations[-1] if run.history.evaluations else None
    quality = last.quality if last is not None and last.epoch == epoch else None
    qualities = [each for each in (run.best_kept, quality) if each is not None]
    run.best_kept = run.configuration.rules.best(qualities)
    if here.rank == 0:
        saved = checkpoint.Checkpoint(
            epoch,
            here.seed,
            run.configuration.sha256,
            state,
            run.configuration.resolved,
            run.configuration.name,
            run.history.metric,
            quality,
            run.best_kept,
            run.history.met,
            here.world_size,
        )
        run.unsaved = epoch
        if not run.has_model and (aside := checkpoint.set_aside(folder)) is not None:
            run.screen.say(f"{folder} had the checkpoints of an earlier run; they are in {aside} now")
        checkpoint.save(folder, saved)
        run.has_model, run.unsaved = True, None
