"""A user's own torch model: what an analysis finds in public ones, and whether its proof holds.

    OMP_NUM_THREADS=1 python benchmarks/own_model.py analysis    57 models and 50 faults
    python benchmarks/own_model.py analysis --models resnet18,tv:vit_b_32
    python benchmarks/own_model.py parity      networks in ONNX Runtime against torch, 5 minutes
    python benchmarks/own_model.py pricing     100,000 networks of ResNet18, and its exact front
    python benchmarks/own_model.py tables      error of latency tables beside noise, 10 minutes
    python benchmarks/own_model.py importance  which units matter, by four measures, 10 minutes
    python benchmarks/own_model.py smaller     half the latency, beside other ways, an hour
    python benchmarks/own_model.py smaller --models train,choose    some of its steps
    python benchmarks/own_model.py lite0       EfficientNet-Lite0 of ImageNet to packages, 15 min
    python benchmarks/own_model.py --quick     small models, seconds

Public models are those of timm and torchvision (`tv:`) with random weights, no network needed:
pip install --no-deps timm torchvision huggingface-hub
"""

from __future__ import annotations

import argparse
import json
import warnings

import torch
from own_model import analysis, importance, lite0, parity, pricing, smaller, tables

PARTS = {
    "analysis": analysis.measure,
    "parity": parity.measure,
    "pricing": pricing.measure,
    "tables": tables.measure,
    "importance": importance.measure,
    "smaller": smaller.measure,
    "lite0": lite0.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS, default="analysis")
    parser.add_argument(
        "--models", default="", help="names (of smaller: steps), with commas between"
    )
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of the models' own libraries
    torch.set_num_threads(1)
    print(json.dumps(PARTS[args.part]([n for n in args.models.split(",") if n], args.quick)))


if __name__ == "__main__":
    main()
