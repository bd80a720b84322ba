"""Configuration files for trainers, to go with tokenised data: TRL, Axolotl, LLaMA-Factory. Makes text, writes nothing.

What depends on the data is filled in; the model, and what depends on the machine, is for the user to set. A
trainer that would read such data wrongly gets no file, but a reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from selfinstruct.data.tokens import Shape

Store = Literal["arrow", "parquet", "npy"]
MODEL = "path/to/the/model"  # what the user has to replace
_HEAD = (
    "# Set the model, and what fits your machine. Run it from this folder: its paths are relative to it.\n"
)


@dataclass(frozen=True, slots=True)
class Configured:
    """Files by name, and for each trainer without one the reason."""

    files: dict[str, str]
    left_out: dict[str, str]


def configure(shape: Shape, store: Store, tokenizer: str) -> Configured:
    """The files for data of this shape.

    Args:
        shape: of the sequences.
        store: what they were written as.
        tokenizer: the name of the tokenizer they were made with, for a comment.
    """
    if store == "npy":
        reason = "reads no NumPy arrays; write Arrow or Parquet"
        return Configured({}, dict.fromkeys(("TRL", "Axolotl", "LLaMA-Factory"), reason))
    head = f"{_HEAD}# The token ids are those of this tokenizer: {json.dumps(tokenizer)}\n"
    files = {"axolotl.yaml": head + _axolotl(shape, store)}
    left_out = {}
    if shape.pack:
        left_out["TRL"] = "packs itself and would let packed rows see each other; write without --pack"
    elif shape.padding in {"left", "random"}:
        left_out["TRL"] = (
            "makes its own attention mask and would attend to padding on the left; use --pad none or right"
        )
    else:
        files["trl.yaml"] = head + _trl(shape, store)
    if store == "arrow":
        files["llamafactory.yaml"] = head + _llamafactory(shape)
    else:
        left_out["LLaMA-Factory"] = "reads tokenised data in Arrow alone; write with --format arrow"
    return Configured(files, left_out)


def _trl(shape: Shape, store: Store) -> str:
    """For `trl sft --config trl.yaml`: a dataset with `input_ids` and `labels` is taken as it is."""
    return f"""model_name_or_path: {MODEL}
datasets:
  - path: {store}
    data_files: {_files(store)}
    split: train
max_length: {shape.most}
packing: false
output_dir: trl-output
seed: {shape.seed}
per_device_train_batch_size: 1
gradient_accumulation_steps: 16
gradient_checkpointing: true
learning_rate: 2.0e-5
num_train_epochs: 1
lr_scheduler_type: cosine
warmup_steps: 100
bf16: true
logging_steps: 10
save_steps: 500
"""


def _axolotl(shape: Shape, store: Store) -> str:
    """For `axolotl train axolotl.yaml`: a dataset without `type` that has the three columns is taken as it is."""
    path = "train" if store == "arrow" else "train.parquet\n    ds_type: parquet"
    return f"""base_model: {MODEL}
datasets:
  - path: {path}
    type:
sequence_len: {shape.most}
sample_packing: false
pad_to_sequence_len: {"true" if shape.pack else "false"}
train_on_inputs: false
output_dir: axolotl-output
seed: {shape.seed}
micro_batch_size: 1
gradient_accumulation_steps: 16
gradient_checkpointing: true
optimizer: adamw_torch_fused
learning_rate: 2.0e-5
num_epochs: 1
lr_scheduler: cosine
warmup_steps: 100
bf16: true
logging_steps: 10
save_steps: 500
val_set_size: 0.0
"""


def _llamafactory(shape: Shape) -> str:
    """For `llamafactory-cli train llamafactory.yaml`: `tokenized_path` is loaded, other data settings are ignored."""
    return f"""model_name_or_path: {MODEL}
stage: sft
do_train: true
finetuning_type: full
dataset: tokens  # has to be named; with a tokenized_path it is not read
tokenized_path: .
template: empty
cutoff_len: {shape.most}
output_dir: llamafactory-output
seed: {shape.seed}
per_device_train_batch_size: 1
gradient_accumulation_steps: 16
learning_rate: 2.0e-5
num_train_epochs: 1.0
lr_scheduler_type: cosine
warmup_steps: 100
bf16: true
logging_steps: 10
save_steps: 500
"""


def _files(store: Store) -> str:
    return "train/data-*.arrow" if store == "arrow" else "train.parquet"
