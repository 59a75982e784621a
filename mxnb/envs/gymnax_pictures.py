"""Plain drawings of gymnax's tasks: a scene where there is one, else the state in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE = 240  # pixels a side, for every picture
_FINE = 3  # lines are drawn this much larger, then made smaller, so that they are smooth
_PAPER, _INK, _GREY = "#ffffff", "#222222", "#9a9a9a"
_BLUE, _ORANGE, _GREEN, _RED, _SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cfe8f7"  # colour-blind safe
_CHANNELS = (_BLUE, _ORANGE, _GREEN, _RED, "#cc79a7", "#56b4e9", "#f0e442", "#777777", "#6a3d9a", "#b15928")


def picture(game: Any, params: Any) -> Callable[[Any], np.ndarray]:
    """render(state) -> uint8[240, 240, 3] for this gymnax environment; drawn on the host, for people."""
    draw = _SCENES.get(str(game.name).split("-")[0], _words)

    def render(state: Any) -> np.ndarray:
        state = jax.tree.map(np.asarray, state)
        return draw(game, params, state)

    return render


class _Scene:
    """A square canvas in the task's own coordinates (x to the right, y up)."""

    def __init__(self, left: float, right: float, bottom: float) -> None:
        self.scale = _SIZE * _FINE / (right - left)
        self.left, self.top = left, bottom + (right - left)
        self.image = Image.new("RGB", (_SIZE * _FINE, _SIZE * _FINE), _PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (float(x) - self.left) * self.scale, (self.top - float(y)) * self.scale

    def line(self, points: Any, colour: str, width: float) -> None:
        pixels = [self.at(x, y) for x, y in points]
        self.draw.line(pixels, fill=colour, width=max(1, round(width * self.scale)), joint="curve")

    def dot(self, point: Any, radius: float, colour: str, *, hollow: bool = False) -> None:
        (px, py), r = self.at(point[0], point[1]), radius * self.scale
        if hollow:
            self.draw.ellipse((px - r, py - r, px + r, py + r), outline=colour, width=2 * _FINE)
        else:
            self.draw.ellipse((px - r, py - r, px + r, py + r), fill=colour)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        x0, y0 = self.at(x - width / 2, y + height / 2)
        x1, y1 = self.at(x + width / 2, y - height / 2)
        self.draw.rectangle((x0, y0, x1, y1), fill=colour)

    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.resize((_SIZE, _SIZE), Image.Resampling.LANCZOS))


def _cartpole(game: Any, params: Any, state: Any) -> np.ndarray:
    scene = _Scene(-2.6, 2.6, -1.6)
    for edge in (-params.x_threshold, params.x_threshold):
        scene.line([(edge, -0.3), (edge, 0.1)], _RED, 0.04)
    scene.line([(-2.6, -0.1), (2.6, -0.1)], _GREY, 0.03)
    scene.box(state.x, 0, 0.7, 0.35, _INK)
    length = 4 * params.length / 2  # drawn from the cart's middle to the pole's end
    tip = (state.x + length * math.sin(state.theta), length * math.cos(state.theta))
    scene.line([(state.x, 0), tip], _ORANGE, 0.14)
    scene.dot((state.x, 0), 0.09, _BLUE)
    return scene.pixels()


def _acrobot(game: Any, params: Any, state: Any) -> np.ndarray:
    scene = _Scene(-2.3, 2.3, -2.3)
    one, two = float(state.joint_angle1), float(state.joint_angle1 + state.joint_angle2)
    elbow = (math.sin(one), -math.cos(one))
    tip = (elbow[0] + math.sin(two), elbow[1] - math.cos(two))
    scene.line([(-2.3, 1), (2.3, 1)], _GREEN, 0.03)  # the height to reach
    scene.line([(0, 0), elbow], _BLUE, 0.16)
    scene.line([elbow, tip], _ORANGE, 0.16)
    for x, y in ((0, 0), elbow):
        scene.dot((x, y), 0.1, _INK)
    return scene.pixels()


def _mountain_car(game: Any, params: Any, state: Any) -> np.ndarray:
    scene = _Scene(params.min_position - 0.05, params.max_position + 0.05, -0.3)
    height = lambda x: 0.45 * math.sin(3 * x) + 0.55
    xs = np.linspace(params.min_position, params.max_position, 60)
    scene.line([(x, height(x)) for x in xs], _GREY, 0.02)
    goal = float(params.goal_position)
    scene.line([(goal, height(goal)), (goal, height(goal) + 0.3)], _GREEN, 0.02)
    scene.box(goal + 0.06, height(goal) + 0.26, 0.12, 0.08, _GREEN)
    x = float(state.position)
    scene.dot((x, height(x) + 0.06), 0.06, _BLUE)
    return scene.pixels()


def _pendulum(game: Any, params: Any, state: Any) -> np.ndarray:
    scene = _Scene(-1.3, 1.3, -1.3)
    tip = (math.sin(state.theta), math.cos(state.theta))  # 0 is upright
    scene.line([(0, 0), tip], _ORANGE, 0.16)
    scene.dot(tip, 0.12, _ORANGE)
    scene.dot((0, 0), 0.06, _INK)
    return scene.pixels()


def _point_robot(game: Any, params: Any, state: Any) -> np.ndarray:
    scene = _Scene(-1.4, 1.4, -0.9)
    angles = np.linspace(0, math.pi, 60)
    scene.line([(params.circle_radius * math.cos(a), params.circle_radius * math.sin(a)) for a in angles], _GREY, 0.02)
    scene.dot(state.goal, params.goal_radius, _GREEN, hollow=True)
    scene.dot(state.pos, 0.06, _BLUE)
    return scene.pixels()


def _reacher(game: Any, params: Any, state: Any) -> np.ndarray:
    reach = game.num_joints + 0.3
    scene = _Scene(-reach, reach, -reach)
    points = [(0.0, 0.0)]
    for angle in state.angles:
        points.append((points[-1][0] + math.cos(angle), points[-1][1] + math.sin(angle)))
    scene.dot(state.goal_xy, 0.15, _GREEN, hollow=True)
    for i, (start, end) in enumerate(itertools.pairwise(points)):
        scene.line([start, end], _CHANNELS[i % 2], 0.16)
    for x, y in points:
        scene.dot((x, y), 0.1, _INK)
    return scene.pixels()


def _swimmer(game: Any, params: Any, state: Any) -> np.ndarray:
    scene = _Scene(-1.3, 1.3, -1.3)
    for urchin in state.urchin_xys:
        scene.dot(urchin, 0.12, _RED)
    scene.dot(state.goal_xy, 0.12, _GREEN, hollow=True)
    scene.dot(state.xy, 0.07, _BLUE)
    return scene.pixels()


def _grid(cells: Any) -> np.ndarray:
    """cells: colours [rows, columns], "" for empty ones."""
    rows, columns = len(cells), len(cells[0])
    side = _SIZE // max(rows, columns)
    image = Image.new("RGB", (_SIZE, _SIZE), _PAPER)
    draw = ImageDraw.Draw(image)
    left, top = (_SIZE - side * columns) // 2, (_SIZE - side * rows) // 2
    for r, row in enumerate(cells):
        for c, colour in enumerate(row):
            x, y = left + c * side, top + r * side
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=colour or "#f4f4f4", outline="#e2e2e2")
    return np.asarray(image)


def _channels(game: Any, params: Any, state: Any) -> np.ndarray:
    """The observation itself, a colour per channel; the first channels lie on top."""
    obs = np.asarray(game.get_obs(state, params))
    obs = obs[..., None] if obs.ndim == 2 else obs
    cells = [["" for _ in range(obs.shape[1])] for _ in range(obs.shape[0])]
    for channel in reversed(range(obs.shape[-1])):
        for r, c in np.argwhere(obs[..., channel] > 0):
            cells[r][c] = _CHANNELS[channel % len(_CHANNELS)]
    return _grid(cells)


def _maze(game: Any, params: Any, state: Any) -> np.ndarray:
    cells = [["" if free else _INK for free in row] for row in np.asarray(game.env_map)]
    cells[state.goal[0]][state.goal[1]] = _GREEN
    cells[state.pos[0]][state.pos[1]] = _BLUE
    return _grid(cells)


def _frozen_lake(game: Any, params: Any, state: Any) -> np.ndarray:
    from gymnax.environments.misc.frozen_lake import GOAL, HOLE

    colours = {int(HOLE): _INK, int(GOAL): _GREEN}
    cells = [[colours.get(int(tile), _SKY) for tile in row] for row in np.asarray(game.desc)]
    row, column = divmod(int(state.position), game.ncol)
    cells[row][column] = _RED if cells[row][column] == _INK else _BLUE
    return _grid(cells)


def _words(game: Any, params: Any, state: Any) -> np.ndarray:
    """Where there is nothing to see: every field of the state and its value."""
    lines = [str(game.name)]
    for name, value in vars(state).items():
        value = np.asarray(value)
        shown = np.array2string(value.reshape(-1)[:4], precision=2, separator=" ") if value.ndim else f"{value:.4g}"
        lines.append(f"{name}: {shown}{' …' if value.size > 4 else ''}")
    return written(lines)


def written(lines: Sequence[str]) -> np.ndarray:
    """A picture uint8[240, 240, 3] of lines of text, the first a heading, for where nothing can be drawn."""
    image = Image.new("RGB", (_SIZE, _SIZE), _PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14)
    for i, line in enumerate(lines):
        draw.text((10, 10 + 20 * i), line, fill=_INK if i else _BLUE, font=font)
    return np.asarray(image)


_SCENES: dict[str, Callable[[Any, Any, Any], np.ndarray]] = {
    "CartPole": _cartpole,
    "Acrobot": _acrobot,
    "MountainCar": _mountain_car,
    "MountainCarContinuous": _mountain_car,
    "ContinuousMountainCar": _mountain_car,
    "Pendulum": _pendulum,
    "PointRobot": _point_robot,
    "Reacher": _reacher,
    "Swimmer": _swimmer,
    "FourRooms": _maze,
    "MetaMaze": _maze,
    "FrozenLake": _frozen_lake,
    **dict.fromkeys(
        ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders", "Catch", "DeepSea", "Pong"), _channels
    ),
}
