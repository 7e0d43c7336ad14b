"""The estimate, its interval and its test, against values worked out otherwise, and their levels by simulation in the small."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harness.comparison.judging import statistics, student, verdict
from harness.comparison.judging.observations import Observations, units

A = [10.0, 10.02, 9.99, 10.01, 10.0]
B = [10.13, 10.12, 10.15, 10.14, 10.11]


def normal(generator: np.random.Generator, count: int, sd: float = 0.001, shift: float = 0.0) -> Observations:
    values = generator.normal(0, sd, 2 * count) + shift * np.repeat([0, 1], count)
    return Observations.of(np.exp(values[:count]).tolist(), np.exp(values[count:]).tolist())


def sample(
    values: list[float], arm: list[int], host: list[int] | None = None, block: list[int] | None = None
) -> Observations:
    count = len(values)
    return Observations(
        np.array(values),
        np.array(arm),
        np.array(host or [0] * count),
        np.array(block or [0] * count),
        60.0 * np.arange(count),
    )


def test_few_runs_are_judged_by_welch() -> None:
    found = statistics.estimate(Observations.of(A, B))
    reference = stats.ttest_ind(np.log(B), np.log(A), equal_var=False)

    assert found.method == "Welch's t"
    assert found.log_ratio == pytest.approx(np.log(B).mean() - np.log(A).mean())
    assert found.interval() == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert 2 * found.p_above(0.0) == pytest.approx(reference.pvalue)


def test_many_runs_are_judged_by_the_bca_bootstrap_of_scipy() -> None:
    generator = np.random.default_rng(1)
    found = statistics.estimate(normal(generator, 40))

    assert found.method == "BCa bootstrap"
    low, high = found.interval()
    welch = replace_decides(found).interval()
    assert (low, high) == pytest.approx(welch, abs=2e-4)
    assert found.interval(0.90)[0] > low
    assert statistics.estimate(normal(np.random.default_rng(1), 40)).interval() == (low, high), "seeded"


def replace_decides(found: statistics.Estimate) -> statistics.Estimate:
    return replace(found, bootstrap_decides=False)


def test_permutation_is_exact_where_it_can_be() -> None:
    found = statistics.permutation(Observations.of(A, B))

    assert found.arrangements == math.comb(10, 5)
    assert found.p_slower == pytest.approx(1 / math.comb(10, 5))
    assert found.p_faster == 1.0


def test_permutation_of_many_counts_the_real_arrangement() -> None:
    generator = np.random.default_rng(2)
    found = statistics.permutation(normal(generator, 50, shift=0.01))

    assert 0 < found.p_slower <= 1 / statistics.ARRANGEMENTS


def test_blocks_are_the_replicates_where_the_arm_changed_between_them() -> None:
    """Each reboot shifts its whole block: eight runs an arm are two, and the interval must say so."""
    shifts = [0.0, 0.004, -0.003, 0.001]
    values, arm, block = [], [], []
    generator = np.random.default_rng(3)
    for place, each in enumerate((0, 1, 1, 0)):
        values += (shifts[place] + generator.normal(0, 1e-4, 4)).tolist()
        arm += [each] * 4
        block += [place] * 4
    blocked = statistics.estimate(sample(values, arm, block=block))
    as_runs = statistics.estimate(sample(values, arm))

    assert blocked.level == "block" and blocked.units == (2, 2) and blocked.runs == (8, 8)
    assert blocked.se > 2 * as_runs.se
    assert blocked.df == 2


def blocks(generator: np.random.Generator, *hosts: tuple[str, float]) -> Observations:
    """Five runs a block; of each host the order of its blocks, and the spread of what its boots shift."""
    values, arm, host, block = [], [], [], []
    for name, (order, spread) in enumerate(hosts):
        for place, side in enumerate(order):
            values += (generator.normal(0, spread) + generator.normal(0, 5e-4, 5)).tolist()
            arm += ["AB".index(side)] * 5
            host += [name] * 5
            block += [place] * 5
    return sample(values, arm, host, block)


def test_the_boots_of_one_host_tell_nothing_of_another_s() -> None:
    """One variance for both hosts would refuse no change, by 4 degrees of freedom where there are 2, in 3 of 100 cases."""
    generator = np.random.default_rng(9)
    found = [statistics.estimate(blocks(generator, ("ABBA", 0.02), ("BAAB", 0.0))) for _ in range(1500)]
    share = np.mean([each.p_above(0.0) <= 0.01 for each in found])

    assert {each.level for each in found} == {"block"}
    assert share <= 0.016, "1 % and two standard deviations"
    alike = [statistics.estimate(blocks(generator, ("ABBA", 0.003), ("BAAB", 0.003))).df for _ in range(300)]
    assert np.median(alike) > 3, "what hosts of like boots tell together is not lost"


def test_a_host_that_repeated_nothing_borrows_no_spread_from_another() -> None:
    """A plan in which the second host has two of its four blocks: how much its boots shift, nobody knows yet."""
    generator = np.random.default_rng(10)
    words = [verdict.judge(blocks(generator, ("ABBA", 0.0), ("BA", 0.02)), 0.005) for _ in range(300)]

    assert sum(each.word in ("SLOWER", "FASTER") for each in words) <= 9
    open_ = next(each for each in words if each.word == "CANNOT TELL")
    assert "A B B A on each" in open_.remedy and open_.more_runs is None
    assert statistics.estimate(blocks(generator, ("ABBA", 0.001), ("BAA", 0.001))).level == "block", "three are enough"


def test_hosts_are_paired_and_never_held_against_each_other() -> None:
    """B is 1 % slower on both hosts, which differ by a fifth."""
    values = [0.0, 0.001, -0.001, 0.2, 0.201, 0.199]
    arm, host = [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]
    values, arm, host = [*values, *(v + 0.01 for v in values)], [*arm, *(1 for _ in arm)], [*host, *host]
    found = statistics.estimate(sample(values, arm, host))

    assert found.log_ratio == pytest.approx(0.01)
    assert found.hosts == 2
    assert found.se < 0.001


def test_a_host_with_one_arm_does_not_enter() -> None:
    values = [0.0, 0.001, 0.01, 0.011, 5.0]
    found = statistics.estimate(sample(values, [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]))

    assert found.log_ratio == pytest.approx(0.01)


def test_many_hosts_are_what_was_sampled() -> None:
    generator = np.random.default_rng(4)
    values, arm, host = [], [], []
    for each in range(6):
        effect = 0.005 + 0.002 * generator.normal()
        for side in (0, 1):
            values += (0.1 * each + effect * side + generator.normal(0, 1e-4, 3)).tolist()
            arm += [side] * 3
            host += [each] * 3
    made = sample(values, arm, host)

    assert units(made).level == "host"
    assert statistics.estimate(made).df == 5
    assert statistics.permutation(made).arrangements == 2**6


def test_alike_to_the_digit_is_no_certainty_beyond_the_clock() -> None:
    found = statistics.estimate(Observations.of([1.0, 1.0, 1.0], [1.002, 1.002, 1.002], resolution=0.001))
    assert found.se == pytest.approx(0.001 * math.sqrt(2 / 3))


def test_one_run_an_arm_has_no_spread() -> None:
    assert not statistics.enough(Observations.of([1.0], [1.1]))
    judged = verdict.judge(Observations.of([1.0], [1.1]), 0.005)
    assert (judged.word, judged.more_runs) == ("CANNOT TELL", 2)


def test_a_drift_is_not_taken_for_the_candidate() -> None:
    """A, then B, on a machine that slows down by 1 % throughout; in turns the same drift does nothing."""
    line = np.linspace(0, 0.01, 10)
    noise = np.random.default_rng(5).normal(0, 2e-4, 10)
    after = sample((line + noise).tolist(), [0] * 5 + [1] * 5)
    turns = sample((line + noise).tolist(), [0, 1, 1, 0, 0, 1, 1, 0, 0, 1])

    judged = verdict.judge(after, 0.0025)
    assert judged.word == "CANNOT TELL" and "A B B A" in judged.remedy
    assert judged.estimate is not None and judged.estimate.drift is not None
    assert verdict.judge(turns, 0.0025).word != "SLOWER"
    assert statistics.estimate(turns).drift is None


def test_a_drift_does_not_hide_the_candidate() -> None:
    """A, then B, which is 0.8 % slower, on a machine that gets faster by as much: equal only to the eye."""
    values = -0.0016 * np.arange(10) + 0.008 * np.repeat([0, 1], 5) + np.random.default_rng(5).normal(0, 2e-4, 10)
    judged = verdict.judge(sample(values.tolist(), [0] * 5 + [1] * 5), 0.005)

    assert judged.estimate is not None and judged.estimate.interval(0.9)[1] < math.log1p(0.005)
    assert judged.word == "CANNOT TELL" and "A B B A" in judged.remedy and judged.more_runs is None
    steady = sample(np.random.default_rng(5).normal(0, 2e-4, 10).tolist(), [0] * 5 + [1] * 5)
    assert verdict.judge(steady, 0.005).word == "EQUAL", "where there is no drift, the order of runs costs no verdict"


def test_three_runs_leave_no_drift_to_judge_by() -> None:
    assert verdict.judge(sample([0.0, 1e-4, 0.0], [0, 0, 1]), 0.005).word == "CANNOT TELL"


def test_an_outlier_is_named_and_counts() -> None:
    made = Observations.of(A, [*B[:4], 11.5])
    (found,) = statistics.outliers(made)

    assert found.index == 9
    assert found.log_deviation == pytest.approx(math.log(11.5) - np.log(B[:4]).mean())
    assert statistics.estimate(made).log_ratio > statistics.estimate(Observations.of(A, B)).log_ratio
    assert not statistics.outliers(Observations.of(A, B))


def test_effect_sizes_that_outliers_do_not_move() -> None:
    made = Observations.of(A, [*B[:4], 11.5])

    assert math.expm1(statistics.hodges_lehmann(made)) == pytest.approx(0.014, abs=0.001)
    assert statistics.cliffs_delta(made) == 1.0


@pytest.mark.parametrize("count", [3, 5, 10])
def test_levels_in_the_small(count: int) -> None:
    """results/comparison/simulate.py proves it on real noise; this sees a break of it at once."""
    generator = np.random.default_rng(6)
    words = [verdict.judge(normal(generator, count), 0.0005).word for _ in range(600)]
    hits = []
    for _ in range(600):
        low, high = statistics.estimate(normal(generator, count, shift=0.005)).interval()
        hits.append(low <= 0.005 <= high)

    assert words.count("SLOWER") <= 12
    assert 0.93 <= np.mean(hits) <= 0.98


def test_power_at_the_median_hosts_noise() -> None:
    generator = np.random.default_rng(7)
    words = [verdict.judge(normal(generator, 5, 0.000958, math.log(1.005)), 0.0025).word for _ in range(300)]
    assert words.count("SLOWER") >= 285


def test_holm_asks_more_of_many_metrics_and_counts_a_mirrored_one_once() -> None:
    slow = Observations.of(A, B)
    alone = verdict.judge(slow, 0.005)
    assert alone.word == "SLOWER"
    twice = verdict.holm([slow, Observations.of([2 * each for each in A], [2 * each for each in B])], 0.005, [0.0] * 2)
    assert [each.word for each in twice] == ["SLOWER", "SLOWER"]

    just = 0.0105
    level = verdict.judge(slow, just)
    assert level.word == "SLOWER" and 0.2 < level.scaled_p <= 1, "just found alone"
    others = [Observations.of(np.random.default_rng(seed).normal(10, 0.01, 5).tolist(), A) for seed in range(9)]
    many = verdict.holm([slow, *others], just, [0.0] * 10)
    assert many[0].word == "CANNOT TELL" and "at once" in many[0].reason


def test_five_runs_an_arm_can_be_slower_in_one_of_many_metrics() -> None:
    """Five against five have 252 arrangements, too few for a permutation at a tenth of 1 %: Welch's t takes its place."""
    others = [Observations.of(np.random.default_rng(seed).normal(10, 0.01, 5).tolist(), A) for seed in range(9)]
    assert verdict.holm([Observations.of(A, B), *others], 0.005, [0.0] * 10)[0].word == "SLOWER"


def test_overall() -> None:
    def judged(word: verdict.Word) -> verdict.Judged:
        return verdict.Judged(word, 0.005, None, None, "")

    assert verdict.overall([judged("EQUAL"), judged("SLOWER"), judged("CANNOT TELL")]) == "SLOWER"
    assert verdict.overall([judged("FASTER"), judged("CANNOT TELL")]) == "CANNOT TELL"
    assert verdict.overall([judged("FASTER"), judged("EQUAL")]) == "FASTER"
    assert verdict.overall([judged("EQUAL")]) == "EQUAL"


@pytest.mark.parametrize(
    ("spread", "difference", "delta"),
    [
        (0.001, 0.005, 0.0025),
        (0.005, 0.02, 0.001),
        (0.005, 0.01, 0.001),
        (0.001, 0.0025, 0.0005),
        (0.002, 0.005, 0.001),
    ],
)
def test_more_runs_are_enough(spread: float, difference: float, delta: float) -> None:
    """As many runs as it asks for give the verdict in four of five cases, whichever of its conditions is the hard one."""
    generator = np.random.default_rng(8)
    needed = verdict.runs_for(spread, difference, delta)
    assert needed is not None
    words = [verdict.judge(normal(generator, needed, spread, math.log1p(difference)), delta).word for _ in range(300)]
    assert words.count("SLOWER") >= 225  # 2.2 standard deviations below 80 %


def test_more_runs_are_enough_for_two_metrics_at_once() -> None:
    """The median and the mean epoch of the same runs, as they are gated: each has half the levels."""
    generator, spread, difference, delta = np.random.default_rng(8), 0.003, 0.01, 0.005
    needed = verdict.runs_for(spread, difference, delta, family=2)
    assert needed is not None
    words = []
    for _ in range(300):
        median = normal(generator, needed, spread, math.log1p(difference))
        mean = replace(median, log_slowness=median.log_slowness + generator.normal(0, spread / 4, 2 * needed))
        words.append(verdict.overall(verdict.holm([median, mean], delta, [0.0, 0.0])))
    assert words.count("SLOWER") >= 240
    few = [normal(generator, 4, spread, delta) for _ in range(2)]
    for each in verdict.holm(few, delta, [0.0, 0.0]):
        assert each.word == "CANNOT TELL" and each.estimate is not None
        assert each.more_runs == verdict.more_units(each.estimate, delta, 2)


def test_more_runs_are_enough_of_arms_of_unlike_number() -> None:
    """Ten more runs an arm make 2 of B 12, and 10 of A no 60."""
    sd, size, (a, b) = 0.006, 2 * math.log1p(0.005), (10, 2)
    seen = Observations.of(np.exp([0.0] * a).tolist(), np.exp([size] * b).tolist())
    found = replace(statistics.estimate(seen), se=sd * math.sqrt(1 / a + 1 / b), df=b - 1.0)
    more = verdict.more_units(found, 0.005)
    assert more is not None and found.log_ratio == pytest.approx(size)
    generator, words = np.random.default_rng(8), []
    for _ in range(300):
        arms = [generator.normal(size * arm, sd, count + more) for arm, count in enumerate((a, b))]
        words.append(verdict.judge(Observations.of(*(np.exp(arm).tolist() for arm in arms)), 0.005).word)
    assert words.count("SLOWER") >= 225


@pytest.mark.parametrize("df", [1.3, 2.0, 4.0, 18.0])
def test_what_is_detected_in_four_of_five_cases_is(df: float) -> None:
    """Quantiles of the central t added up promise of few runs what 3 of 4 cases show."""
    size = student.detected(df, 0.975, 0.8)
    assert 1 - stats.nct.cdf(stats.t.ppf(0.975, df), df, size) == pytest.approx(0.8, abs=0.001)
    assert student.power(df, size, 0.0, 0.025, 0.025) == pytest.approx(0.8, abs=0.001)


def test_one_run_each_and_a_reboot_between_lack_turns_and_not_runs() -> None:
    """Two more of each would leave it what it is: in one boot an arm."""
    judged = verdict.judge(sample([0.0, 0.02], [0, 1], block=[0, 1]), 0.005)
    assert (judged.word, judged.reason, judged.more_runs) == ("CANNOT TELL", verdict.ONE_BOOT, None)
    assert "A B B A" in judged.remedy


def test_runs_that_are_missing_for_equality_count_both_sides() -> None:
    """No difference at all: the interval must lie inside on either side, which one-sided power would ask too few runs for."""
    generator = np.random.default_rng(8)
    three = normal(generator, 3, 0.003)
    judged = verdict.judge(three, 0.005)
    assert judged.word == "CANNOT TELL" and judged.estimate is not None and judged.more_runs is not None
    size, sd = judged.estimate.log_ratio, judged.estimate.se * math.sqrt(3 / 2)
    runs = 3 + judged.more_runs
    words = [verdict.judge(normal(generator, runs, sd, size), 0.005).word for _ in range(300)]
    assert words.count("EQUAL") >= 225


@pytest.mark.parametrize(
    ("floor", "slower", "word"),
    [
        (0.0, 1.02, "SLOWER"),
        (0.08, 1.02, "CANNOT TELL"),
        (0.08, 1.0, "CANNOT TELL"),
        (0.08, 1.1, "SLOWER"),
        (0.004, 1.0, "EQUAL"),
        (0.004, 1.002, "EQUAL"),
    ],
)
def test_within_a_machine_s_floor_nothing_is_told(floor: float, slower: float, word: str) -> None:
    """Neither that B is slower nor that it is not, by a delta that nobody asked for. Of a larger delta EQUAL is true."""
    judged = verdict.judge(Observations.of(A, [slower * each for each in A]), 0.005, floor=floor)
    assert (judged.word, judged.delta) == (word, 0.005)


def test_importing_it_imports_no_scipy_and_no_torch() -> None:
    code = "import sys, harness.comparison.comparison; print([m for m in ('torch', 'scipy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
