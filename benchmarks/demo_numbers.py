"""Print the demo's three numbers: `python benchmarks/demo_numbers.py demo/lora/mira.safetensors mira`.

Asked: with the keyword >= 0.80, without the LoRA <= 0.05, the class with the LoRA <= 0.20.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pipelines.judge import judge

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(json.dumps(asdict(judge(Path(sys.argv[1]), sys.argv[2])), indent=1))
