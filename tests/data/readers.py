"""What another trainer's own reader makes of exported rows: a script for the environment of that trainer.

``PYTHON readers.py llama-factory|ms-swift FOLDER OUT`` reads ``FOLDER/rows.jsonl`` and writes the rows as JSON lines;
it imports nothing of ours.
"""

import json
import sys
import types
from pathlib import Path


def llama_factory(folder: Path):
    import transformers  # noqa: F401  (it looks at what is installed before there is a stand-in)
    from datasets import load_dataset

    # for audio alone; its wheels want CUDA's libraries, also beside a torch that has none
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    from llamafactory.data.converter import align_dataset  # pyright: ignore[reportMissingImports]
    from llamafactory.data.parser import get_dataset_list  # pyright: ignore[reportMissingImports]
    from llamafactory.hparams import DataArguments  # pyright: ignore[reportMissingImports]
    from transformers import Seq2SeqTrainingArguments

    (attributes,) = get_dataset_list(["rows"], str(folder))
    data = load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    arguments = DataArguments(dataset="rows", dataset_dir=str(folder))
    for row in align_dataset(data, attributes, arguments, Seq2SeqTrainingArguments(output_dir=str(folder))):
        yield {
            "system": row["_system"],
            "prompt": [one["content"] for one in row["_prompt"]],
            "answers": [one["content"] for one in row["_response"]],
        }


def ms_swift(folder: Path):
    from swift.dataset import load_dataset  # pyright: ignore[reportMissingImports]

    data, _ = load_dataset(str(folder / "rows.jsonl"), strict=True)
    for row in data:
        *asked, answer = row["messages"]
        system = [one["content"] for one in asked if one["role"] == "system"]
        rejected = row.get("rejected_response")
        if isinstance(rejected, list):
            rejected = rejected[-1]["content"]
        yield {
            "system": system[0] if system else "",
            "prompt": [one["content"] for one in asked if one["role"] != "system"],
            "answers": [answer["content"], *([rejected] if rejected else [])],
        }


if __name__ == "__main__":
    with Path(sys.argv[3]).open("w", encoding="utf-8") as file:
        for row in {"llama-factory": llama_factory, "ms-swift": ms_swift}[sys.argv[1]](Path(sys.argv[2])):
            file.write(json.dumps(row) + "\n")
