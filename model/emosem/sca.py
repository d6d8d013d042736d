"""SCA, the paper's own comparison (Tab. 2), on EmoSEM's data, trainer and scorer.

Segment and Caption Anything (https://github.com/xk-huang/segment-caption-anything, Apache-2.0) asks the image
with learned caption queries: a second, deeper mixer reads SAM's updated tokens and image, and its first
outputs, behind learned task tokens, are what a GPT-2 without cross-attention continues. For EmoSEM's task the
prompt is the emotional one, and the mask losses are added. Sizes that the paper leaves out are those that
give its parameter totals to the digit.
"""

import torch
from torch import Tensor, nn

from model.emosem.config import ScaConfig
from model.emosem.mask_decoder import Decoded, FeatureMixer


class CaptionMixer(nn.Module):
    """Learned queries over what the mask decoder made of tokens and image, as a language model's prefix."""

    def __init__(self, config: ScaConfig, *, dim: int, num_heads: int, mlp_dim: int, word_dim: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(config.caption_tokens, dim).normal_(std=0.02))
        self.tasks = nn.Parameter(torch.zeros(config.tasks, config.task_tokens, word_dim).normal_(std=0.02))
        self.mixer = FeatureMixer(config.mixer_depth, dim, num_heads, mlp_dim)
        self.projector = nn.Linear(dim, word_dim)
        self.length = config.task_tokens + config.caption_tokens
        """Prefix tokens."""

    def forward(self, decoded: Decoded, image_pe_SC: Tensor) -> Tensor:
        """Prefix (Q, task + caption tokens, d_w) of the queries that `decoded` answers."""
        queries_QNC = self.queries.expand(len(decoded.tokens), -1, -1)
        count = queries_QNC.shape[1]
        mask = decoded.token_mask
        if mask is not None:
            mask = nn.functional.pad(mask, (count, 0), value=True)
        tokens_QNC = torch.cat([queries_QNC, decoded.tokens], dim=1)
        mixed_QNC, _ = self.mixer(decoded.image, image_pe_SC, tokens_QNC, mask, None)
        said_QNC = self.projector(mixed_QNC[:, :count])
        return torch.cat([self.tasks[-1].expand(len(said_QNC), -1, -1), said_QNC], dim=1)
