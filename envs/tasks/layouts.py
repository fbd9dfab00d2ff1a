"""Maps of mazes from above; # is a wall. The first four are those of gymnasium-robotics (from D4RL, Fu et al. 2020)."""

import torch
from torch import Tensor

LAYOUTS = {
    "UMaze": """
        #####
        #...#
        ###.#
        #...#
        #####""",
    "Open": """
        #######
        #.....#
        #.....#
        #.....#
        #######""",
    "Medium": """
        ########
        #..##..#
        #..#...#
        ##...###
        #..#...#
        #.#..#.#
        #...#..#
        ########""",
    "Large": """
        ############
        #....#.....#
        #.##.#.#.#.#
        #......#...#
        #.####.###.#
        #..#.#.....#
        ##.#.#.#.###
        #..#...#...#
        ############""",
    # The giant maze of OGBench (Park et al. 2025, arXiv:2410.20092).
    "Giant": """
        ################
        #.#......##....#
        #.#.##.#.#..##.#
        #...#..#...#...#
        #.###.######.#.#
        #...#...#....#.#
        ###.#.#..#.#.###
        #...#..#...#...#
        #.#.#.######.#.#
        #.###...#...##.#
        #.....#...#....#
        ################""",
    # Sutton, Precup, Singh 1999: four rooms joined by hallways.
    "FourRooms": """
        #############
        #.....#.....#
        #.....#.....#
        #...........#
        #.....#.....#
        #.....#.....#
        ##.####.....#
        #.....###.###
        #.....#.....#
        #.....#.....#
        #...........#
        #.....#.....#
        #############""",
}


def walls(name: str, scale: int = 1) -> Tensor:
    """A layout [rows, columns], bool, True for walls. Each character becomes `scale` x `scale` cells."""
    rows = LAYOUTS[name].split()
    cells = torch.tensor([[cell == "#" for cell in row] for row in rows])
    return cells.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
