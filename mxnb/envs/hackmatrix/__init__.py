"""HackMatrix: eight stages of a hacker on a 6 x 6 board, with 23 programs, four enemies, masks and 15 rewards."""

from mxnb.envs.hackmatrix.actions import action_mask
from mxnb.envs.hackmatrix.game import hackmatrix
from mxnb.envs.hackmatrix.observe import Observation, flatten, observe
from mxnb.envs.hackmatrix.render import render
from mxnb.envs.hackmatrix.rewards import exit_distance, siphon_quality
from mxnb.envs.hackmatrix.state import State, make_state
from mxnb.envs.hackmatrix.walker import walk

__all__ = [
    "Observation",
    "State",
    "action_mask",
    "exit_distance",
    "flatten",
    "hackmatrix",
    "make_state",
    "observe",
    "render",
    "siphon_quality",
    "walk",
]
