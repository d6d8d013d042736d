"""The two heads on regions: class and box, and attributes. Both pool the map and run layer4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.resnext import make_layer
from pipeline.regions.vinvl.rpn import STRIDE


class Layer4(nn.Module):
    """Holds layer4 under the original's name."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.layer4 = make_layer(config, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, R, R) -> (N, 2C, ceil(R/2), ceil(R/2))."""
        out: Tensor = self.layer4(x)
        return out


class BoxFeatureExtractor(nn.Module):
    """Region features: RoIAlign, layer4, mean over the grid."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.resolution = config.roi_resolution
        self.head = Layer4(config)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Features (sum of n_i, F) of each image's boxes (n_i, 4) on its map (C, h_i, w_i).

        RoIAlign with the original's settings: no half-pixel shift, adaptive sampling. It treats a map's
        edge in its own way, so each map must end where its image does. One image after the other: 300
        boxes fill a device and need 2 GB at true size, which a batch must not multiply.
        """
        return torch.cat([self._of_image(m, box) for m, box in zip(maps, boxes, strict=True)])

    def _of_image(self, image_map: Tensor, boxes: Tensor) -> Tensor:
        """Features (n, F) of the boxes (n, 4) of one map (C, h, w)."""
        pooled = roi_align(
            image_map[None],
            [boxes],
            self.resolution,
            spatial_scale=1 / STRIDE,
            sampling_ratio=0,
            aligned=False,
        )
        features: Tensor = self.head(pooled).mean(dim=(2, 3))
        return features


class BoxPredictor(nn.Module):
    """Class scores and one box refinement per class."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.cls_score = nn.Linear(config.feature_size, config.num_classes)
        self.bbox_pred = nn.Linear(config.feature_size, config.num_classes * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F) -> logits (N, classes), deltas (N, classes, 4)."""
        return self.cls_score(features), self.bbox_pred(features).unflatten(-1, (-1, 4))


class BoxHead(nn.Module):
    """What each proposal shows, and where exactly."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.feature_extractor = BoxFeatureExtractor(config)
        self.predictor = BoxPredictor(config)


class RoIHeads(nn.Module):
    """Holds the box head under the original's name."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.box = BoxHead(config)


class AttributePredictor(nn.Module):
    """Attributes of a region from its feature and its predicted class."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.cls_embedding = nn.Embedding(config.num_classes, config.class_embedding)
        self.fc_attr = nn.Linear(config.feature_size + config.class_embedding, config.attribute_hidden)
        self.attr_score = nn.Linear(config.attribute_hidden, config.num_attributes)
        nn.init.normal_(self.cls_embedding.weight, std=0.01)
        for layer in (self.fc_attr, self.attr_score):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """(N, F) and class numbers (N) -> logits (N, attributes)."""
        x = torch.cat([features, self.cls_embedding(labels)], dim=1)
        logits: Tensor = self.attr_score(F.relu(self.fc_attr(x)))
        return logits


class AttributeHead(nn.Module):
    """Pools the *final* detections again, through the box head's own layer4 (an alias, not a copy)."""

    def __init__(self, config: VinvlConfig, feature_extractor: BoxFeatureExtractor) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = feature_extractor
        self.predictor = AttributePredictor(config)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], labels: Tensor) -> list[Tensor]:
        """Per image the probabilities (n_i, attributes) of its boxes (n_i, 4); what is filtered out is 0."""
        features = self.feature_extractor(maps, boxes)
        probabilities = self.predictor(features, labels).softmax(-1)
        probabilities[:, 0] = 0
        probabilities = torch.where(probabilities > self.config.attribute_threshold, probabilities, 0)
        tables = torch.split(probabilities, [len(box) for box in boxes])
        return [cap_attributes(table, self.config.attributes_per_image) for table in tables]


def cap_attributes(table: Tensor, limit: int) -> Tensor:
    """At most about `limit` attributes of one image's table (n, attributes), as the original counts.

    With P of the table's cells above zero, its smallest P - limit cells are cut; zeros count among them,
    so the cut reaches a real attribute only when fewer cells are zero than that. At VinVL's own sizes
    and threshold (525 attributes, 0.05) that never happens.
    """
    positive = int((table > 0).sum())
    if not positive > limit > 0:
        return table
    least = table.flatten().kthvalue(positive - limit + 1).values
    return torch.where(table >= least, table, 0)
