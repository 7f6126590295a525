"""Once-for-all's progressive shrinking: the max network, then elastic kernels, depths, widths.

Source: arXiv 1908.09791 and train_ofa_net.py of github.com/mit-han-lab/once-for-all: 180 epochs of
the max network, which teaches from then on, 125 of kernel sizes, 25 + 125 of depths and of widths
with rates of their own (here in proportion to the max network's 2.6 for 2,048 images); labels and
teacher count alike; channels inside ops are sorted by importance before each stage of widths.
Where depth is an expand ratio of 0, blocks are left out in the stages of widths.

Cost of a step, in training steps of the max network: 1 of the first stage; then the teacher's
forward pass (1/3) and 1, 2 or 4 times `train.random_subnets` random subnets.
"""

from hwnas.supernet.recipes import ALL, Recipe, Stage

KERNELS = {"kernel_size": ALL, "": 1}

RECIPE = Recipe(
    stages=(
        Stage(share=180),
        Stage(share=125, largest=False, random=1, options=KERNELS, rate=0.37),
        Stage(share=25, largest=False, random=2, options={**KERNELS, "depth": 2}, rate=0.03),
        Stage(share=125, largest=False, random=2, options={**KERNELS, "depth": ALL}, rate=0.09),
        Stage(share=25, largest=False, random=4, options={"kernel_size": ALL, "depth": ALL, "": 2},
              rate=0.03, sorts=True),
        Stage(share=125, largest=False, random=4, rate=0.09, sorts=True),
    ),
    labels=0.5,
    ramp=0.0,
    frozen=True,
    restarts=True,
)  # fmt: skip
