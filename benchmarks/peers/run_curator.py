"""The prompts through Bespoke Curator: its own client for OpenAI-compatible servers, with its rate limits lifted.

For `pip install bespokelabs-curator`. Left at their defaults, the limits would keep one request in flight.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(url: str, prompts: str, output: str, width: str) -> None:
    litellm = importlib.util.find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    os.environ |= {
        "TELEMETRY_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # the tokenizer table that it would download lies in one of its dependencies
        "TIKTOKEN_CACHE_DIR": str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"),
    }
    from bespokelabs import curator

    class Asker(curator.LLM):  # type: ignore[misc]
        """One prompt, one text."""

        def prompt(self, row: dict[str, Any]) -> str:
            return str(row["prompt"])

        def parse(self, _row: dict[str, Any], response: str) -> dict[str, str]:
            return {"text": response}

    bodies = [json.loads(line) for line in Path(prompts).read_text().splitlines()]
    asker = Asker(
        model_name="stub",
        backend="openai",
        generation_params={name: bodies[0][name] for name in ("max_tokens", "temperature", "top_p", "stop")},
        backend_params={
            "base_url": url,
            "api_key": "none",
            "max_requests_per_minute": 10**6,
            "max_tokens_per_minute": 10**10,
            "max_concurrent_requests": int(width),
        },
    )
    asker([{"prompt": body["messages"][0]["content"]} for body in bodies]).dataset.to_json(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
