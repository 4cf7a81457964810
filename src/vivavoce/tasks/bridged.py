"""The common parts of tasks whose environment is a package in another process."""

from __future__ import annotations

from collections import defaultdict

from vivavoce.environments.bridged import Bridge, Bridged, offered_tools
from vivavoce.environments.environment import Environment, Limits
from vivavoce.environments.words import told_in_words
from vivavoce.errors import DataError
from vivavoce.records import Problem
from vivavoce.tasks.acting import ActingTask
from vivavoce.tasks.splitting import key_of, known_split


class BridgedTask(ActingTask):
    """A task of episodes, without :meth:`ids`. A score of ``right_from`` is a success."""

    name: str
    episodes: type[Bridged] = Bridged

    def __init__(self, bridge: Bridge, limits: Limits, right_from: float) -> None:
        self.bridge, self.limits, self.right_from = bridge, limits, right_from
        self._kept: dict[str, list[Problem]] = {}

    def environment(self) -> Environment:
        """A fresh place, in which one episode at a time runs."""
        return self.episodes(self.name, self.bridge, self.limits, self.right_from)

    def ids(self, split: str) -> list[tuple[str, str]]:
        """The environment's tasks of a split, and the group of each."""
        raise NotImplementedError

    def problems(self, split: str) -> list[Problem]:
        """The tasks of a split, each with its first messages. A task of train that begins like one of test is left out,
        unless all tasks of its group begin alike: then the beginning does not say which task it is.

        Raises MissingDependency without the package, DataError if it has no such task, if a task begins otherwise each
        time, or nothing is left.
        """
        known_split(split, self.name)
        if not self._kept:
            test = [self._begin(*one) for one in self.ids("test")]
            train = [self._begin(*one) for one in self.ids("train")]
            for one in [*self.ids("test"), *self.ids("train")][:1]:
                self._need_equal((*test, *train)[0], self._begin(*one))
            begins = defaultdict[str, set[str]](set)
            for problem in (*train, *test):
                begins[problem.group].add(key_of(problem.question))
            tested = {key_of(problem.question) for problem in test if len(begins[problem.group]) > 1}
            training = [problem for problem in train if key_of(problem.question) not in tested]
            if train and not training:
                do = "name other tasks, or set train: 0 to test alone"
                raise DataError("every task of train begins like one of test", f"task {self.name}", do)
            self._kept = {"train": training, "test": test}
        return self._kept[split]

    def _need_equal(self, first: Problem, second: Problem) -> None:
        if first.history != second.history:
            what = "the task begins with other words each time, so its episodes cannot be compared or resumed"
            do = "have the environment go by the seed, or by the task, that its reset is given"
            raise DataError(what, f"task {self.name}, {first.id}", do)

    def _begin(self, id_: str, group: str) -> Problem:
        episode = self.bridge.episode()
        first = self.bridge.ask("reset", [episode, id_, 0])
        self.bridge.ask("close", episode)
        seen = first["messages"]
        return Problem(id_, seen[-1]["content"], "", group, told_in_words(seen, offered_tools(first)))


__all__ = ["BridgedTask"]
