"""Non-maximum suppression of many groups at once, a group being the candidates of one class in one image.

Boxes are compared as they are: the usual trick, one NMS over boxes moved apart by class, costs float32 most of its digits where
the groups are images times classes, and compares boxes of different groups too. A box goes when its IoU with a better one is
above a limit, as in torchvision's NMS.

Shapes: N candidates of all groups, P pairs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

MAX_IOU = 0.5
PAIRS_AT_ONCE = 2**21  # of a candidate and a better one: about 100 MB
# On a CPU, pairs for each candidate, from which it is faster to compare only with what stays. One thread, candidates that
# hardly overlap and that mostly do: 200 of each of 40 groups 7 and 2 ms that way, 54 and 61 in pairs; 60 of 640 25 and 7, 87
# both; 30 of 100 1.8 and 0.7, 1.9 and 2.4; but 20 of 600 6.4 and 2.8, 4.6 and 6.1
MANY_PAIRS = 12
# Candidates of a call, whole groups: those of different ones are compared too, for nothing. 1,024: 43 and 5 ms for 60 of 640
ONE_BY_ONE = 256


@dataclass(frozen=True)
class Limits:
    """Of suppression within a class."""

    min_score: float  # what is not above it is nothing
    max_iou: float
    per_class: int | None  # the best of a class that are looked at; None: all
    per_image: int  # the best that are left


def best_first(scores: Tensor, group: Tensor) -> Tensor:
    """Positions that bring groups together in ascending order, and within each the highest score to the front."""
    by_score = scores.sort(descending=True, stable=True).indices
    return by_score[group[by_score].sort(stable=True).indices]


def rank_in(group: Tensor) -> Tensor:
    """Position of each element within its group, from 0; `group` is sorted."""
    position = torch.arange(len(group), device=group.device)
    begins = group.diff(prepend=group[:1] - 1) != 0
    return position - torch.where(begins, position, 0).cummax(dim=0).values


def unsuppressed(ltrb: Tensor, rank: Tensor, max_iou: float = MAX_IOU) -> Tensor:
    """(N,) bool: what greedy NMS leaves of each group. Boxes (N, 4) come group by group, best first, `rank` says which.

    Greedy suppression is a rule that each box obeys by looking at better ones only: stay unless one of them stays and
    overlaps too much. So it has exactly one solution, and applying the rule to all boxes at once until nothing changes
    finds it: the first k of each group are right after k rounds, and in practice a handful of rounds suffices.
    """
    ends = rank.cumsum(0)  # each meets as many better ones as its rank says
    all_pairs = int(ends[-1]) if len(ends) else 0
    if ltrb.device.type == "cpu" and all_pairs > MANY_PAIRS * len(rank):
        return _one_by_one(ltrb, rank, max_iou)
    cuts = PAIRS_AT_ONCE * torch.arange(1, all_pairs // PAIRS_AT_ONCE + 1, device=rank.device)
    places = [0, *torch.searchsorted(ends, cuts).tolist(), len(rank)]
    pairs = [_overlapping_pairs(ltrb, rank, *each, max_iou) for each in itertools.pairwise(places)]
    better, worse = torch.cat(pairs, dim=1)
    stays = torch.ones_like(rank, dtype=torch.bool)
    while True:
        suppressors = torch.zeros_like(rank).index_add_(0, worse, stays[better].to(rank.dtype))
        if torch.equal(stays, suppressors == 0):
            return stays
        stays = suppressors == 0


def _one_by_one(ltrb: Tensor, rank: Tensor, max_iou: float) -> Tensor:
    """`unsuppressed` by torchvision's NMS, groups moved apart in float64, which keeps all digits of float32."""
    begins, group = (rank == 0).nonzero()[:, 0], (rank == 0).cumsum(0)
    apart = (ltrb.max() - ltrb.min()).double() + 1
    moved = ltrb.double() + (group * apart)[:, None]
    first = torch.searchsorted(begins, torch.arange(0, len(rank), ONE_BY_ONE))
    places = [*begins[first[first < len(begins)].unique()].tolist(), len(rank)]
    by_place = -torch.arange(len(rank), dtype=torch.float64)  # within a group as good as the scores
    stays = torch.zeros_like(rank, dtype=torch.bool)
    for begin, end in itertools.pairwise(places):
        stays[begin + nms(moved[begin:end], by_place[begin:end], max_iou)] = True
    return stays


def _overlapping_pairs(ltrb: Tensor, rank: Tensor, begin: int, end: int, max_iou: float) -> Tensor:
    """(2, P): boxes from `begin` to `end` (second row), each with the better ones that it overlaps (first)."""
    better_ones = rank[begin:end]  # as many as the box's rank, right before it
    worse = torch.arange(begin, begin + len(better_ones), device=rank.device).repeat_interleave(better_ones)
    # counts each box's better ones down to 1
    distance = better_ones.cumsum(0).repeat_interleave(better_ones) - torch.arange(len(worse), device=rank.device)
    better = worse - distance
    overlap = _iou(ltrb[better], ltrb[worse]) > max_iou
    return torch.stack([better[overlap], worse[overlap]])


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """(P,) of two boxes (P, 4) each."""
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0)
    area_of_one, area_of_other = ((box[:, 2:] - box[:, :2]).prod(dim=1) for box in (one, other))
    both = sides.prod(dim=1)
    return both / (area_of_one + area_of_other - both)
