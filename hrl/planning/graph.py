"""Graphs of landmarks, as pure functions: the choice of landmarks, and the shortest paths between them."""

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from torch import Tensor


def farthest_points(points: Tensor, count: int, least: float = 0.0) -> Tensor:
    """Indices [L] of at most `count` of the points [M, G] by farthest-point sampling: first the point nearest to the
    mean, then repeatedly the point farthest from all chosen points. Stops when that distance is at most `least`."""
    chosen = [int((points - points.mean(0)).norm(dim=-1).argmin())]
    gap = (points - points[chosen[0]]).norm(dim=-1)
    while len(chosen) < count:
        farthest = int(gap.argmax())
        if float(gap[farthest]) <= least:
            break
        chosen.append(farthest)
        gap = torch.minimum(gap, (points - points[farthest]).norm(dim=-1))
    return torch.tensor(chosen, device=points.device)


def shortest_paths(start: Tensor, end: Tensor, cost: Tensor, count: int) -> Tensor:
    """Costs [count, count] of the shortest paths along E directed edges from `start` [E] to `end` [E] with positive
    costs [E]; infinite without a path."""
    return torch.as_tensor(dijkstra(_matrix(start, end, cost, count)), dtype=torch.float32, device=cost.device)


def components(start: Tensor, end: Tensor, count: int) -> Tensor:
    """The number [count] of each node's component. Nodes of one component can reach each other along directed edges."""
    matrix = _matrix(start, end, torch.ones(len(start)), count)
    return torch.as_tensor(connected_components(matrix, connection="strong")[1], device=start.device).long()


def _matrix(start: Tensor, end: Tensor, cost: Tensor, count: int) -> csr_array:
    index = np.stack([start.numpy(force=True), end.numpy(force=True)])
    return csr_array((cost.numpy(force=True).astype(np.float64), index), shape=(count, count))
