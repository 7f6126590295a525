"""The public once-for-all ProxylessNAS space, width 1.0: exact geometry of OFAProxylessNASNets.

Source: ofa/imagenet_classification/elastic_nn/networks/ofa_proxyless.py of
    github.com/mit-han-lab/once-for-all, base_stage_width "proxyless".
"""

import functools

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

_stage = functools.partial(
    Stage, act="relu6", se=False, kernel_sizes=(3, 5, 7), expand_ratios=(3, 4, 6)
)
_DEPTHS = (2, 3, 4)

SPACE = SearchSpace(
    name="ofa-proxyless-w10",
    resolutions=(128, 144, 160, 176, 192, 208, 224),
    profiled=(128, 160, 192, 224),
    on_request=range(128, 261, 4),
    family=MbV3(
        stem=Stem(32, kernel_size=3, stride=2, act="relu6", first_width=16, first_act="relu6"),
        stages=(
            _stage(24, 4, 2, depths=_DEPTHS),  # 56 px
            _stage(40, 4, 2, depths=_DEPTHS),  # 28 px
            _stage(80, 4, 2, depths=_DEPTHS),  # 14 px
            _stage(96, 4, 1, depths=_DEPTHS),  # 14 px
            _stage(192, 4, 2, depths=_DEPTHS),  # 7 px
            _stage(320, 1, 1, depths=(1,)),  # 7 px
        ),
        head=Head(expand=1280, width=0, act="relu6"),
    ),
    in_channels=3,
    n_classes=1000,
    bn_eps=1e-3,
)
