"""HackMatrix: eight stages of a hacker on a 6 x 6 board, with 23 programs, four enemies, masks and 15 rewards.

The rules in short; notebook 06 tells them with pictures. Section numbers in these files are those of the specification
that the tests' written positions (tests/envs/hackmatrix) come from.

- Goal: step on the exit of eight stages, each in a corner. Three health points; one is healed at each exit. What is
  owned comes along, and so do the enemies. Won after stage 8, lost at no health, cut off after 1,000 steps.
- Board: blocks are walls that hold data (points) or a program; a question mark hides which. Credits and energy lie
  on free cells, data siphons in corners; walking picks up the siphons only.
- Actions (28): four moves, the siphon, 23 programs. A move towards an enemy or a transmission in the player's row or
  column with no block between is an attack from any distance; who survives it misses a turn.
- Siphon: spends one data siphon and drains the player's cell and its four neighbours. Each block releases its number
  of transmissions, which hatch into enemies one turn later and can be destroyed before. Drained blocks stay walls.
- Programs are kept for the whole game and paid in credits and energy each time. Moves, the siphon and WAIT end the
  turn; all others take no turn. UNDO goes back to before the last turn, rewards included.
- Enemies: virus (2 HP, two moves a turn), daemon (3 HP), glitch (2 HP, walks through blocks), cryptog (2 HP, seen only
  in the player's row and column). Each turn they take a step towards the player, or bite for one health point from one
  of the four cells beside. Stage s begins with s transmissions; who hatches acts from the next turn on.
- Scheduled tasks bring one enemy every 13 - stage turns; each siphon postpones the next by five turns and shortens
  the interval by one.
"""

from mxnb.envs.hackmatrix.actions import action_mask
from mxnb.envs.hackmatrix.game import hackmatrix, reset, step
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
    "reset",
    "siphon_quality",
    "step",
    "walk",
]
