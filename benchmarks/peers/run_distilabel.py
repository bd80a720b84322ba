"""The prompts through distilabel: one task step, as many requests in a batch as the server has slots.

For `pip install "distilabel[openai]" requests` (it imports requests without declaring it).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(url: str, prompts: str, output: str, width: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    bodies = [json.loads(line) for line in Path(prompts).read_text().splitlines()]
    asked = {"max_new_tokens": bodies[0]["max_tokens"]}
    asked |= {name: bodies[0][name] for name in ("temperature", "top_p", "stop")}
    with Pipeline("full-server") as pipeline:
        load = LoadDataFromDicts(
            data=[{"instruction": body["messages"][0]["content"]} for body in bodies], batch_size=int(width)
        )
        model = OpenAILLM(model="stub", base_url=url, api_key="none", generation_kwargs=asked)
        load.connect(TextGeneration(llm=model, input_batch_size=int(width)))
    rows = pipeline.run(use_cache=False)["default"]["train"]
    texts = [row["generation"] for row in rows if row["generation"]]
    Path(output).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


if __name__ == "__main__":
    main(*sys.argv[1:])
