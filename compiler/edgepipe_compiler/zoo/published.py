"""Published sizes of the networks. Tests compare the zoo with them."""

from __future__ import annotations

from dataclasses import dataclass

_TORCHVISION = "torchvision {0}: num_params and _ops (10⁹ multiply-adds) of its metadata"
_MILLION = 1_000_000


@dataclass(frozen=True)
class Published:
    """Exact parameters; multiply-adds with the precision of the source, ``macs_step``."""

    parameters: int
    macs: int
    source: str
    macs_step: int = _MILLION

    def agrees(self, parameters: int, macs: int) -> bool:
        """Whether counts round to the published ones."""
        return parameters == self.parameters and 2 * abs(macs - self.macs) <= self.macs_step


def _torchvision(weights: str, parameters: int, millions: int) -> Published:
    return Published(parameters, millions * _MILLION, _TORCHVISION.format(weights))


PUBLISHED: dict[str, Published] = {
    "mobilenet_v1": Published(
        4_231_976,
        569 * _MILLION,
        "Howard et al. 2017 (arXiv:1704.04861), table 8: 569 M multiply-adds, 4.2 M parameters; "
        "the exact number of parameters is that of Keras Applications MobileNet, trainable ones "
        "only (no running statistics)",
    ),
    "mobilenet_v1_025_128": Published(
        470_072,
        14 * _MILLION,
        "TensorFlow models, slim/nets/mobilenet_v1.md, 0.25_128: 14 M MACs, 0.47 M parameters; "
        "the exact number of parameters is that of github.com/osmr/imgclsmob, MobileNet x0.25",
    ),
    "mobilenet_v2": _torchvision("MobileNet_V2_Weights", 3_504_872, 301),
    "resnet20": Published(
        272_474,
        40_810_000,
        "github.com/chenyaofo/pytorch-cifar-models, cifar10_resnet20: 40.81 M multiply-adds, 0.27 M "
        "parameters; exactly 272,474 with shortcuts of option B",
        macs_step=100_000,
    ),
    "resnet18": _torchvision("ResNet18_Weights", 11_689_512, 1_814),
    "resnet34": _torchvision("ResNet34_Weights", 21_797_672, 3_664),
    "resnet50": _torchvision("ResNet50_Weights", 25_557_032, 4_089),
    "resnet101": _torchvision("ResNet101_Weights", 44_549_160, 7_801),
    "squeezenet1_0": _torchvision("SqueezeNet1_0_Weights", 1_248_424, 819),
    "squeezenet1_1": _torchvision("SqueezeNet1_1_Weights", 1_235_496, 349),
    "vgg11": _torchvision("VGG11_Weights", 132_863_336, 7_609),
    "vgg16": _torchvision("VGG16_Weights", 138_357_544, 15_470),
    "vgg19": _torchvision("VGG19_Weights", 143_667_240, 19_632),
    "mobilenet_v3_large": _torchvision("MobileNet_V3_Large_Weights", 5_483_032, 217),
    "efficientnet_b0": _torchvision("EfficientNet_B0_Weights", 5_288_548, 386),
    "mnasnet1_0": _torchvision("MNASNet1_0_Weights", 4_383_312, 314),
    "shufflenet_v2_x1_0": _torchvision("ShuffleNet_V2_X1_0_Weights", 2_278_604, 145),
    "densenet121": _torchvision("DenseNet121_Weights", 7_978_856, 2_834),
    "googlenet": _torchvision("GoogLeNet_Weights", 6_624_904, 1_498),
    "inception_v3": Published(
        27_161_264 - 3_326_696,
        5_713 * _MILLION,
        "torchvision Inception_V3_Weights: num_params 27,161,264 includes the auxiliary head of "
        "3,326,696 (98,560 + 2,459,136 + 769,000), which inference and _ops leave out",
    ),
    "alexnet": _torchvision("AlexNet_Weights", 61_100_840, 714),
}
