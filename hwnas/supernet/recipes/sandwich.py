"""The max network alone first, then the sandwich rule with in-place distillation.

Source: BigNAS, arXiv 2003.11142: every step trains the largest, the smallest and random subnets,
their gradients summed; the largest learns from the labels, the others from its answers. Training
the largest alone for part of the run before shrinking: DepS, arXiv 2407.06167 (from the abstract;
the ramp is ours).

Cost of a step, in training steps of the max network: 1 while it is alone; then 1 + the min network
+ `train.random_subnets` times a random one.
"""

from hwnas.supernet.recipes import Recipe, Stage

RECIPE = Recipe(stages=(Stage(share=0.3), Stage(share=0.7, smallest=True, random=1)))
