"""EmoSEM (Sec. 3): one network that segments what evokes an emotion in an artwork, and says why.

    SAM grid v ──────────────┐
    "generate the mask for   ├─ mask decoder ─▶ mask       p', m' ── prefix projector ── f ┐
     the emotion awe" ── P_E ┘  (frozen mixer)                                             ├─ GPT-2 ─▶ words
                                                           CLIP patch tokens ──────────────┘

Single-Mask asks for one emotion by its prompt; Multi-Masks answers all eight at once, one learnable mask
token each (Sec. 3.5). SAM's and CLIP's encoders are not part of it: they are frozen, their outputs its input.

Shapes: B images, Q queries of one (image, emotion) each, T texts, P prefix tokens, L words, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.emosem.captioner import Captioner
from model.emosem.config import EmoSEMConfig, ScaConfig
from model.emosem.mask_decoder import MaskDecoder
from model.emosem.projectors import EmotionProjector, PrefixProjector
from model.emosem.saving import SavedModel
from model.emosem.sca import CaptionMixer
from pipeline.common.emotions import EMOTIONS


class Segmentation(NamedTuple):
    """Masks and prefixes of Q queries."""

    mask_logits: Tensor
    """(Q, H, W) before the sigmoid, in SAM's padded square frame, 4 x grid pixels a side."""
    prefix: Tensor
    """(Q, P, C) f, the language model's prefix; P may be 0."""
    prefix_mask: Tensor | None
    """(Q, P) bool, False for padding behind a shorter prompt; None when there is none."""
    region: Tensor | None = None
    """(Q, 1, C) what each mask encloses, as the language model sees it; None where it sees the picture."""


class EmoSEM(SavedModel, library_name="emosem"):
    """The network of Fig. 2, from cached features on. `build_emosem` builds it, `SavedModel` saves it."""

    prompt_ids: Tensor
    """(E, N) int64 token ids of the eight prompts."""
    prompt_mask: Tensor
    """(E, N) bool, False for padding behind the shorter ones."""

    def __init__(self, config: EmoSEMConfig) -> None:
        super().__init__()
        self.config = config
        self.captioner = Captioner(config.language_model, cross_attention=config.sca is None)
        word_dim: int = self.captioner.gpt2.config.n_embd
        if word_dim != config.visual_dim and config.sca is None:
            raise ValueError(
                f"the language model is {word_dim} wide and CLIP's patch tokens {config.visual_dim}; "
                "its cross-attention needs both equal"
            )
        multi = config.paradigm == "multi"
        self.mask_decoder = MaskDecoder(
            dim=config.dim,
            grid=config.grid,
            depth=config.mixer_depth,
            num_heads=config.mixer_heads,
            mlp_dim=config.mixer_mlp_dim,
            num_mask_tokens=len(EMOTIONS) if multi else 4,
        )
        self.emotion_projector = None if multi else EmotionProjector(word_dim, config.dim)
        prefixed = config.prefix != "none" and config.sca is None
        self.prefix_projector = PrefixProjector(config.dim, word_dim) if prefixed else None
        self.region_projector = PrefixProjector(config.dim, word_dim) if config.visual == "region" else None
        self.caption_mixer = None if config.sca is None else self._caption_mixer(config.sca, word_dim)
        ids, mask = _pad(config.prompts)
        self.register_buffer("prompt_ids", ids, persistent=False)
        self.register_buffer("prompt_mask", mask, persistent=False)
        self.prompts_differ = len({len(prompt) for prompt in config.prompts}) > 1
        self._freeze()

    def _caption_mixer(self, sca: ScaConfig, word_dim: int) -> CaptionMixer:
        sizes = self.config
        return CaptionMixer(
            sca,
            dim=sizes.dim,
            num_heads=sizes.mixer_heads,
            mlp_dim=sizes.mixer_mlp_dim,
            word_dim=word_dim,
        )

    def _freeze(self) -> None:
        """Only the paper's parts train: mask head, mask tokens, projectors, language model (Sec. 4.1)."""
        decoder = self.mask_decoder
        decoder.requires_grad_(self.config.finetune == "mask-decoder")
        decoder.mask_tokens.requires_grad_(True)
        decoder.output_upscaling.requires_grad_(True)
        for i, head in enumerate(decoder.output_hypernetworks_mlps):
            head.requires_grad_(self.config.paradigm == "multi" or i == 0)
        decoder.no_mask_embed.requires_grad_(False)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by learning rate: ``segmenter`` (all but GPT-2's), ``language_model``."""
        language = {id(p) for p in self.captioner.parameters()}
        trainable = [p for p in self.parameters() if p.requires_grad]
        return {
            "segmenter": [p for p in trainable if id(p) not in language],
            "language_model": [p for p in trainable if id(p) in language],
        }

    def segment(self, sam_BCHW: Tensor, rows_Q: Tensor, emotion_Q: Tensor) -> Segmentation:
        """Masks and prefixes (Eq. 2, 3; Eq. 8, 9 for multi).

        Args:
            sam_BCHW: SAM's grids of the images.
            rows_Q: int64, the image of each query.
            emotion_Q: int64, its emotion, a position in EMOTIONS.
        """
        if self.config.paradigm == "multi":
            return self._segment_all(sam_BCHW, rows_Q, emotion_Q)
        words = self.captioner.embed(self.prompt_ids[emotion_Q])
        prompt = self.emotion_projector(words.detach() if self.config.detach_prompt else words)  # type: ignore[misc]
        prompt_mask = self.prompt_mask[emotion_Q] if self.prompts_differ else None
        decoded = self.mask_decoder(sam_BCHW, rows_Q, prompt, prompt_mask, masks=[0])
        mask_logits, prefix_mask = decoded.mask_logits[:, 0], None
        if self.caption_mixer is not None:
            prefix = self.caption_mixer(decoded, self.mask_decoder.positions())
            return Segmentation(mask_logits, prefix, None)
        mask_tokens = decoded.tokens[:, 2:5] if self.config.ambiguity_aware else decoded.mask_tokens
        if self.config.prefix == "mask+prompt":  # f = [p'', m'']
            tokens = torch.cat([decoded.prompt, mask_tokens], dim=1)
            if prompt_mask is not None:
                prefix_mask = nn.functional.pad(prompt_mask, (0, mask_tokens.shape[1]), value=True)
        elif self.config.prefix == "prompt":
            tokens, prefix_mask = decoded.prompt, prompt_mask
        else:
            tokens = mask_tokens
        region = self._region(mask_logits, decoded.image)
        return Segmentation(mask_logits, self._project(tokens), prefix_mask, region)

    def _segment_all(self, sam_BCHW: Tensor, rows_Q: Tensor, emotion_Q: Tensor) -> Segmentation:
        """All eight emotions of each image in one pass, then those asked for."""
        rows_B = torch.arange(len(sam_BCHW), device=sam_BCHW.device)
        no_prompt = sam_BCHW.new_zeros(len(sam_BCHW), 0, self.config.dim)
        decoded = self.mask_decoder(sam_BCHW, rows_B, no_prompt, None, masks=range(len(EMOTIONS)))
        asked_Q = rows_Q * len(EMOTIONS) + emotion_Q
        tokens = decoded.mask_tokens.flatten(0, 1).index_select(0, asked_Q)[:, None]
        mask_logits = decoded.mask_logits.flatten(0, 1).index_select(0, asked_Q)
        region = self._region(mask_logits, decoded.image, rows_Q)
        return Segmentation(mask_logits, self._project(tokens), None, region)

    def _region(
        self, mask_logits_QHW: Tensor, image_SC: Tensor, rows_Q: Tensor | None = None
    ) -> Tensor | None:
        """`Segmentation.region`: the mean of the image's cells, weighted by the mask's probability.

        The image is (B, S, C) where `rows_Q` is given, else already (Q, S, C). Words do not move the mask by
        it.
        """
        if self.region_projector is None:
            return None
        image_QSC = image_SC if rows_Q is None else image_SC.index_select(0, rows_Q)
        inside_QHW = mask_logits_QHW.detach().float().sigmoid()
        inside_QS = nn.functional.avg_pool2d(inside_QHW[:, None], 4).flatten(1)
        inside_QS = inside_QS / inside_QS.sum(1, keepdim=True).clamp(min=1e-6)
        token: Tensor = self.region_projector(torch.einsum("qs,qsc->qc", inside_QS, image_QSC))
        return token[:, None]

    def _project(self, tokens_QNC: Tensor) -> Tensor:
        if self.prefix_projector is None:
            return tokens_QNC.new_zeros(len(tokens_QNC), 0, self.config.visual_dim)
        prefix: Tensor = self.prefix_projector(tokens_QNC)
        return prefix

    def forward(
        self,
        sam_BCHW: Tensor,
        clip_BKC: Tensor,
        *,
        rows_Q: Tensor,
        emotion_Q: Tensor,
        query_T: Tensor,
        tokens_TL: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (Q, H, W) of the queries and word logits (T, L, V) of texts about them.

        Args:
            clip_BKC: CLIP's patch tokens of the images.
            query_T: int64, the query each text belongs to.
            tokens_TL: int64, its token ids.
            sam_BCHW, rows_Q, emotion_Q: as in `segment`.
        """
        found = self.segment(sam_BCHW, rows_Q, emotion_Q)
        mask = None if found.prefix_mask is None else found.prefix_mask[query_T]
        prefix = found.prefix.index_select(0, query_T)
        seen = clip_BKC[rows_Q[query_T]] if found.region is None else found.region.index_select(0, query_T)
        words = self.captioner(prefix, mask, tokens_TL, seen)
        return found.mask_logits, words


def _pad(prompts: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask, (E, N) int64 and bool; padding behind the shorter ones."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*prompt, *[prompt[-1]] * (length - len(prompt))] for prompt in prompts])
    mask = torch.tensor([[i < len(prompt) for i in range(length)] for prompt in prompts])
    return ids, mask


def build_emosem(config: EmoSEMConfig) -> EmoSEM:
    """A randomly initialised network; `pretrained.build_pretrained` builds it on SAM's decoder and GPT-2."""
    return EmoSEM(config)
