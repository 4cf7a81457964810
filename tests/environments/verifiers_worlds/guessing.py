"""A taskset of verifiers 0.4 as a user writes one: a hidden number, told by words over several turns."""

import random

import verifiers.v1 as vf  # pyright: ignore[reportMissingImports]  (it runs where the package is)


class NumberData(vf.TaskData):
    number: int


class NumberTask(vf.Task[NumberData]):
    """The reward is the environment's."""


class GuessingConfig(vf.TasksetConfig):
    tasks: int = 20
    greatest: int = 9


class GuessingEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class GuessingEnv(vf.Env[GuessingEnvConfig]):
    async def run(self, task, agents):
        solved = False
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                digits = "".join(c for c in segment.last_reply if c.isdigit())[:3]
                solved = digits == str(task.data.number)
                if solved:
                    break
                higher = not digits or int(digits) < task.data.number
                segment = await interaction.turn("higher" if higher else "lower")
        interaction.trace.record_reward("found", float(solved), 1.0)


class GuessingTaskset(vf.Taskset[NumberTask, GuessingConfig]):
    def load(self):
        for i in range(self.config.tasks):
            number = random.Random(i).randint(1, self.config.greatest)
            prompt = f"Game {i}. Guess a number from 1 to {self.config.greatest}."
            yield NumberTask(NumberData(prompt=prompt, system_prompt="Answer with one number.", number=number))


__all__ = ["GuessingEnv", "GuessingTaskset"]
