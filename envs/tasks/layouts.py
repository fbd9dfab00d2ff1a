"""Maps of the mazes, from above: # is a wall. The first four are gymnasium-robotics' (D4RL's, Fu et al. 2020)."""

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


def walls(name: str) -> Tensor:
    """A layout as [rows, columns], true where there is a wall."""
    rows = LAYOUTS[name].split()
    return torch.tensor([[cell == "#" for cell in row] for row in rows])
