"""The prompts through NVIDIA NeMo Data Designer: a seed dataset of prompts and one text column.

For `pip install data-designer`. Left at its default, it would keep four requests in flight.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(url: str, prompts: str, output: str, width: str) -> None:
    os.environ |= {"NEMO_TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1"}
    import data_designer.config as dd
    from data_designer.interface import DataDesigner

    bodies = [json.loads(line) for line in Path(prompts).read_text().splitlines()]
    seeds = Path(prompts).with_name("seeds.jsonl")
    seeds.write_text(
        "".join(json.dumps({"prompt": body["messages"][0]["content"]}) + "\n" for body in bodies)
    )
    asked = dd.ChatCompletionInferenceParams(
        **{name: bodies[0][name] for name in ("max_tokens", "temperature", "top_p")},
        extra_body={"stop": bodies[0]["stop"]},
        max_parallel_requests=int(width),
    )
    model = dd.ModelConfig(alias="stub", model="stub", provider="stub", inference_parameters=asked)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.LocalFileSeedSource(path=str(seeds)))
    builder.add_column(dd.LLMTextColumnConfig(name="text", model_alias="stub", prompt="{{ prompt }}"))
    provider = dd.ModelProvider(name="stub", endpoint=url, provider_type="openai", api_key="none")
    designer = DataDesigner(artifact_path=Path(output).parent / "artifacts", model_providers=[provider])
    rows = designer.create(builder, num_records=len(bodies)).load_dataset()
    Path(output).write_text("".join(json.dumps({"text": text}) + "\n" for text in rows["text"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
