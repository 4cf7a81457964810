"""A taskset of verifiers 0.4 as a user writes one: tools behind MCP, and a reward for the last reply."""

import verifiers.v1 as vf  # pyright: ignore[reportMissingImports]  (it runs where the package is)

STOCK = {"flour": 3, "rice": 5, "salt": 1, "sugar": 8, "tea": 2, "oats": 7}


class PantryTools(vf.Toolset[vf.ToolsetConfig]):
    TOOL_PREFIX = "pantry"

    @vf.tool
    def count(self, item: str) -> str:
        """How many packets of an item there are."""
        return str(STOCK.get(item, 0))


class PantryTaskConfig(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig()


class PantryData(vf.TaskData):
    answer: str


class PantryTask(vf.Task[PantryData, vf.State, PantryTaskConfig]):
    @classmethod
    def toolsets(cls, config):
        return [PantryTools(config.tools)]

    @vf.reward(weight=1.0)
    async def right(self, trace) -> float:
        return float(self.data.answer in (trace.last_reply or ""))


class PantryConfig(vf.TasksetConfig):
    task: PantryTaskConfig = PantryTaskConfig()


class PantryTaskset(vf.Taskset[PantryTask, PantryConfig]):
    def load(self):
        for item, count in STOCK.items():
            data = PantryData(prompt=f"How many packets of {item} are there?", answer=str(count))
            yield PantryTask(data, self.config.task)


__all__ = ["PantryTaskset"]

if __name__ == "__main__":
    PantryTools.run()
