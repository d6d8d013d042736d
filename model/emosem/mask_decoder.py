"""SAM's mask decoder, batched over different images: feature mixer and mask head of Sec. 3.2.

Module and weight names are those of `segment_anything.modeling.MaskDecoder` (Apache-2.0,
https://github.com/facebookresearch/segment-anything), so its checkpoints fit. Three things are new: a batch
may hold several queries for each of several images; prompts of different lengths share a batch, their padding
masked; and what depends on the image alone is computed once per image.

Shapes: B images, Q queries, N tokens [iou, masks, prompt], C channels, S = H*W cells of the image grid,
M masks asked for. ``rows_Q`` names each query's image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from segment_anything.modeling.common import LayerNorm2d, MLPBlock
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention with an inner width of its own."""

    def __init__(self, dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        inner = dim // downsample_rate
        if inner % num_heads:
            raise ValueError(f"{num_heads} heads do not divide the attention's {inner} channels")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_mask: Tensor | None = None,
        *,
        q_rows: Tensor | None = None,
        kv_rows: Tensor | None = None,
    ) -> Tensor:
        """Attend from q to k, v, each (batch, tokens, dim).

        Args:
            key_mask: bool (Q, keys), False for keys that nobody may see.
            q_rows: (Q,) when q holds images: the image of each query, taken after the projection.
            kv_rows: the same for k and v.
        """
        heads_q = self._split(self.q_proj(q), q_rows)
        heads_k = self._split(self.k_proj(k), kv_rows)
        heads_v = self._split(self.v_proj(v), kv_rows)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        out = F.scaled_dot_product_attention(heads_q, heads_k, heads_v, attn_mask=mask)
        attended: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return attended

    def _split(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """(batch, tokens, inner) to (Q, heads, tokens, inner / heads)."""
        if rows is not None:
            x = x.index_select(0, rows)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, tokens to image, MLP, image to tokens (Eq. 1)."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate=2)
        self.first = first

    def forward(
        self,
        tokens_QNC: Tensor,
        image_SC: Tensor,
        token_pe_QNC: Tensor,
        image_pe_SC: Tensor,
        *,
        token_mask_QN: Tensor | None,
        rows_Q: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """One block; the image is (B, S, C) where `rows_Q` is given, else already (Q, S, C)."""
        if self.first:  # SAM's first block has neither position nor residual here
            tokens = self.self_attn(tokens_QNC, tokens_QNC, tokens_QNC, token_mask_QN)
        else:
            q = tokens_QNC + token_pe_QNC
            tokens = tokens_QNC + self.self_attn(q, q, tokens_QNC, token_mask_QN)
        tokens = self.norm1(tokens)
        q, k = tokens + token_pe_QNC, image_SC + image_pe_SC
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(q, k, image_SC, kv_rows=rows_Q))
        tokens = self.norm3(tokens + self.mlp(tokens))
        q = tokens + token_pe_QNC
        update = self.cross_attn_image_to_token(k, q, tokens, token_mask_QN, q_rows=rows_Q)
        image = image_SC if rows_Q is None else image_SC.index_select(0, rows_Q)
        return tokens, self.norm4(image + update)


class FeatureMixer(nn.Module):
    """SAM's two-way transformer: `depth` blocks and a last look of the tokens at the image (Eq. 2)."""

    def __init__(self, depth: int, dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, num_heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self,
        image_BSC: Tensor,
        image_pe_SC: Tensor,
        tokens_QNC: Tensor,
        token_mask_QN: Tensor | None,
        rows_Q: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Updated tokens (Q, N, C) and updated image (Q, S, C); without `rows_Q` the image is per query."""
        tokens, image = tokens_QNC, image_BSC
        rows = rows_Q  # until the first block has mixed the query into its image
        for block in self.layers:
            tokens, image = block(
                tokens, image, tokens_QNC, image_pe_SC, token_mask_QN=token_mask_QN, rows_Q=rows
            )
            rows = None
        q, k = tokens + tokens_QNC, image + image_pe_SC
        tokens = tokens + self.final_attn_token_to_image(q, k, image)
        return self.norm_final_attn(tokens), image


class Decoded(NamedTuple):
    """What queries get."""

    mask_logits: Tensor
    """(Q, M, H, W) before the sigmoid, in the padded square frame: 4 times the grid, 256 x 256 officially."""
    mask_tokens: Tensor
    """(Q, M, C) updated mask tokens m'."""
    prompt: Tensor
    """(Q, N, C) updated prompt tokens p'; rows of padding mean nothing."""
    tokens: Tensor
    """(Q, 1 + masks + N, C) all updated tokens."""
    token_mask: Tensor | None
    """(Q, 1 + masks + N) bool, False for padding; None when there is none."""
    image: Tensor
    """(Q, S, C) updated image."""


class MaskDecoder(nn.Module):
    """SAM's decoder without its IoU head, and of its prompt encoder the two parts that are used."""

    def __init__(
        self, *, dim: int, grid: int, depth: int, num_heads: int, mlp_dim: int, num_mask_tokens: int
    ) -> None:
        """Sizes: `dim` d_k; `grid` cells a side of the image grid; the rest as in `FeatureMixer`."""
        super().__init__()
        self.grid = grid
        self.transformer = FeatureMixer(depth, dim, num_heads, mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(num_mask_tokens)
        )
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(
        self,
        image_BCHW: Tensor,
        rows_Q: Tensor,
        prompt_QNC: Tensor,
        prompt_mask_QN: Tensor | None,
        masks: Sequence[int],
    ) -> Decoded:
        """Answer queries.

        Args:
            image_BCHW: SAM's image grids v.
            rows_Q: int64, each query's image.
            prompt_QNC: prompt tokens p; N may be 0.
            prompt_mask_QN: bool, False for padding behind a shorter prompt; None when there is none.
            masks: which mask tokens to turn into masks, M of them.
        """
        num_masks = self.mask_tokens.num_embeddings
        learned_NC = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens_QNC = torch.cat([learned_NC.expand(len(rows_Q), -1, -1), prompt_QNC], dim=1)
        if prompt_mask_QN is not None:
            prompt_mask_QN = F.pad(prompt_mask_QN, (1 + num_masks, 0), value=True)
        image_BSC = (image_BCHW + self.no_mask_embed.weight[0, :, None, None]).flatten(2).transpose(1, 2)
        tokens, image_QSC = self.transformer(image_BSC, self.positions(), tokens_QNC, prompt_mask_QN, rows_Q)
        mask_tokens_QMC = torch.stack([tokens[:, 1 + i] for i in masks], dim=1)
        mask_logits = self._mask_head(image_QSC, mask_tokens_QMC, masks)
        return Decoded(
            mask_logits,
            mask_tokens_QMC,
            prompt=tokens[:, 1 + num_masks :],
            tokens=tokens,
            token_mask=prompt_mask_QN,
            image=image_QSC,
        )

    def positions(self) -> Tensor:
        """(S, C) positional encoding of the image's cells."""
        encoding: Tensor = self.pe_layer((self.grid, self.grid)).flatten(1).T
        return encoding

    def _mask_head(self, image_QSC: Tensor, mask_tokens_QMC: Tensor, masks: Sequence[int]) -> Tensor:
        """Each mask token's linear classifier over the upscaled image (Eq. 2), (Q, M, 4 grid, 4 grid)."""
        image_QCHW = image_QSC.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        upscaled_QcHW = self.output_upscaling(image_QCHW)
        classifiers_QMc = torch.stack(
            [self.output_hypernetworks_mlps[i](mask_tokens_QMC[:, at]) for at, i in enumerate(masks)], dim=1
        )
        return torch.einsum("qmc,qchw->qmhw", classifiers_QMc, upscaled_QcHW)
