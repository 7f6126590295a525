"""The public once-for-all ResNet50D space: exact geometry of OFAResNets with elastic widths.

Source: ofa/imagenet_classification/elastic_nn/networks/ofa_resnets.py of
    github.com/mit-han-lab/once-for-all, width multipliers 0.65, 0.8 and 1. The two smaller
    multipliers give the stem's middle the same 24 channels, which are offered once.
"""

import functools

from hwnas.networks.space import DeepStem, Head, SearchSpace, Stage

_stage = functools.partial(
    Stage,
    act="relu",
    se=False,
    kernel_sizes=(3,),
    expand_ratios=(20, 25, 35),
    block="bottleneck",
)

SPACE = SearchSpace(
    name="ofa-resnet50d",
    resolutions=(128, 144, 160, 176, 192, 208, 224),
    profiled=(128, 160, 192, 224),
    on_request=range(128, 261, 4),
    stem=DeepStem(mid_widths=(24, 32), widths=(40, 48, 64), act="relu"),  # 224 -> 56 px
    stages=(
        _stage(256, 4, 1, depths=(2, 3, 4), widths=(168, 208, 256)),  # 56 px
        _stage(512, 4, 2, depths=(2, 3, 4), widths=(336, 408, 512)),  # 28 px
        _stage(1024, 6, 2, depths=(4, 5, 6), widths=(664, 816, 1024)),  # 14 px
        _stage(2048, 4, 2, depths=(2, 3, 4), widths=(1328, 1640, 2048)),  # 7 px
    ),
    head=Head(expand=0, width=0, act="relu"),
    in_channels=3,
    n_classes=1000,
)
