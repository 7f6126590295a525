"""The sandwich rule with in-place distillation, each network of a step at a resolution of its own.

Source: BigNAS, arXiv 2003.11142: every step trains the largest, the smallest and random subnets,
their gradients summed; the largest learns from the labels, the others from its answers. Ours, by
`benchmarks/training.py ladder`: the largest at the largest resolution and every other network at a
random one; half of a subnet's loss is that of the labels. The largest trains alone only as long
as `train.max_only` says.

Cost of a step, in training steps of the max network: 1 + the min network + `train.random_subnets`
times a random one.
"""

from hwnas.supernet.recipes import Recipe, Stage

RECIPE = Recipe(
    stages=(Stage(share=0.0), Stage(share=1.0, smallest=True, random=1)),
    resolutions="own",
    labels=0.5,
)
