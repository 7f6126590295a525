"""The public once-for-all ResNet50D space: exact geometry of OFAResNets with elastic widths.

Source: ofa/imagenet_classification/elastic_nn/networks/ofa_resnets.py of
    github.com/mit-han-lab/once-for-all, width multipliers 0.65, 0.8 and 1. The two smaller
    multipliers give the stem's middle the same 24 channels, which are offered once.
"""

from hwnas.networks.families.resnet_d import DeepStem, ResNetD, Stage
from hwnas.networks.space import SearchSpace

SPACE = SearchSpace(
    name="ofa-resnet50d",
    resolutions=(128, 144, 160, 176, 192, 208, 224),
    profiled=(128, 160, 192, 224),
    on_request=range(128, 261, 4),
    family=ResNetD(
        stem=DeepStem(mid_widths=(24, 32), widths=(40, 48, 64), act="relu"),  # 224 -> 56 px
        stages=(
            Stage((168, 208, 256), 4, 1, depths=(2, 3, 4)),  # 56 px
            Stage((336, 408, 512), 4, 2, depths=(2, 3, 4)),  # 28 px
            Stage((664, 816, 1024), 6, 2, depths=(4, 5, 6)),  # 14 px
            Stage((1328, 1640, 2048), 4, 2, depths=(2, 3, 4)),  # 7 px
        ),
    ),
    in_channels=3,
    n_classes=1000,
)
