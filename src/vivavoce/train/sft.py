"""Supervised fine-tuning on right answers, on TRL's SFTTrainer through its public constructor.

    L = - sum log pi(token | prompt, tokens before) / N,    over the N completion tokens of one update

Paper: arXiv:2506.03541, the SFT stage. Differs: rows are tokenised by :func:`vivavoce.train.tokens.score_rows`, which
T-DPO and serving share, and handed to TRL as token ids and labels; the tokens are those of TRL's own preparation of
conversational prompt-completion rows with ``completion_only_loss``, but an over-long row is dropped and not cut.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from vivavoce.errors import DataError
from vivavoce.records import Example
from vivavoce.train import checkpoint
from vivavoce.train.settings import Progress, SFTSettings, TrainResult
from vivavoce.train.tokens import score_rows

logger = logging.getLogger(__name__)


def train_sft(
    model: str | Path,
    examples: Sequence[Example],
    settings: SFTSettings,
    out: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> TrainResult:
    """Fine-tune ``model`` on ``examples`` and save it in ``out``, which then loads like any transformers model.

    A killed run with ``save_steps`` goes on from its last checkpoint when called again with the same arguments, to the
    same weights bit by bit on a CPU; a finished one returns its result without training. Raises DataError where the
    model or every row is unusable, RunConflict where ``out`` belongs to another run.
    """
    if not examples:
        raise DataError("there are no examples to train on", str(out), "check the stage that makes the SFT rows")
    if heavier := next((e for e in examples if e.weight != 1.0), None):
        what = f"a row of problem {heavier.problem} has weight {heavier.weight}, and SFT counts every row once"
        raise DataError(what, str(out), "use `viva train two-task` with alpha=0, or leave score_weighted out")
    out = Path(out)
    set_seed(seed)
    student, tokenizer = checkpoint.open_model(model, settings)
    rows = [score_rows(tokenizer, e.prompt, [e.completion], where=f"problem {e.problem}")[0] for e in examples]
    used = [row for row in rows if len(row.ids) <= settings.max_length]
    dropped = len(rows) - len(used)
    if dropped:
        logger.warning("dropped %d of %d rows longer than %d tokens", dropped, len(rows), settings.max_length)
    if not used:
        what = f"all {dropped} rows are longer than {settings.max_length} tokens"
        raise DataError(what, str(out), "raise max_length")
    key = checkpoint.run_key("sft", model, settings, seed, [[row.ids, row.start] for row in used])
    if done := checkpoint.finished(out, key):
        return done
    out.mkdir(parents=True, exist_ok=True)

    steps = settings.max_steps or max(1, math.ceil(len(used) * settings.epochs / settings.rows_per_step))
    config = _config(settings, out, seed, steps)
    checkpoint.check_launch(config)
    lengths = [len(row.ids) for row in used] if settings.group_by_length else None
    order = checkpoint.training_order(len(used), settings.rows_per_step, steps, seed, lengths=lengths)
    labels = [[-100] * row.start + list(row.completion) for row in used]
    dataset = Dataset.from_dict({"input_ids": [list(row.ids) for row in used], "labels": labels}).select(order)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = SFTTrainer(
        model=student,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=checkpoint.lora_config(settings.lora, settings.lora.dropout) if settings.lora else None,
        callbacks=[checkpoint.Curve(out / "loss.jsonl", progress)],
    )
    with checkpoint.threads(settings.threads):
        started = time.perf_counter()
        checkpoint.train(trainer, out, key)
        seconds = time.perf_counter() - started
    return checkpoint.finish(
        trainer,
        tokenizer,
        out,
        key,
        rows_used=len(used),
        rows_dropped=dropped,
        tokens_seen=int(trainer.state.num_input_tokens_seen),
        seconds=seconds,
    )


def _config(settings: SFTSettings, out: Path, seed: int, steps: int) -> SFTConfig:
    shared = checkpoint.arguments(settings, out, seed, steps)
    config = SFTConfig(
        **shared,
        bf16=settings.bf16,
        max_length=None,
        include_num_input_tokens_seen="non_padding",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    # One device's share of an update, cut into as many equal passes as rows_per_pass asks for.
    share = max(1, settings.rows_per_step // config.world_size)
    passes = math.ceil(share / (settings.rows_per_pass or share))
    while share % passes:
        passes += 1
    config.per_device_train_batch_size, config.gradient_accumulation_steps = share // passes, passes
    return config


__all__ = ["train_sft"]
