"""What a run says on the console while it goes on: plain lines that survive GitHub, Colab and papermill."""

from __future__ import annotations

import time
from typing import Any

from mxnb.run.metrics import final_metrics, judge


class Progress:
    """Plain lines: the first chunk, then every 5 % or 30 seconds, or every `every` updates; a warning once."""

    def __init__(self, agent: Any, every: int) -> None:
        self.agent, self.every, self.share, self.at = agent, every, -1, 0.0

    def __call__(self, run: Any) -> None:
        """After a chunk: prints a line if one is due, and warnings of what is new."""
        share = run.update // self.every if self.every else 20 * run.update // self.agent.num_updates
        now = time.perf_counter()
        if share == self.share and (self.every or now - self.at < 30):
            return
        self.share, self.at = share, now
        recent = run.rows[-max(1, len(run.rows) // 20) :]
        seen = final_metrics(recent, 1.0)
        speed = len(recent) / sum(1 / row["time/steps_per_second"] for row in recent)
        left = (self.agent.num_updates - run.update) * self.agent.steps_per_update / speed
        parts = [
            f"{run.update / self.agent.num_updates:4.0%}",
            f"{self.agent.timesteps(run.update):,} steps",
            f"{speed:,.0f} steps/s",
        ]
        for label, name in (("return", "train/mean_episode_return"), ("entropy", "train/entropy_frac")):
            if name in seen:
                parts.append(f"{label} {seen[name]:.2f}")
        parts.append(f"{int(left // 60)} min {int(left % 60):02d} s to go")
        print("  ".join(parts), flush=True)
        if len(run.rows) >= 10:
            warn(run, judge(self.agent.health, run.rows))


def warn(run: Any, judgement: list[str]) -> None:
    """Prints each judgement once a run, by the metric it begins with."""
    for words in judgement:
        topic = words.split(" ")[0]
        if topic not in run.said:
            run.said.add(topic)
            print(f"warning: {words}", flush=True)
