"""EmoSEM (Sec. 3): one network that segments what evokes an emotion in an artwork, and says why.

    SAM grid v ──────────────┐
    "generate the mask for   ├─ mask decoder ─▶ mask       p', m' ── prefix projector ── f ┐
     the emotion awe" ── P_E ┘  (frozen mixer)                                             ├─ GPT-2 ─▶ words
                                                           CLIP patch tokens ──────────────┘

Single-Mask asks for one emotion by its prompt; Multi-Masks answers all eight at once, one learnable mask
token each (Sec. 3.5). SAM's and CLIP's encoders are not part of it: they are frozen, their outputs its input.

Shapes: B images, Q queries of one (image, emotion) each, T texts, P prefix tokens, L words, C channels.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from model.emosem.captioner import Captioner
from model.emosem.config import EmoSEMConfig, read_config
from model.emosem.mask_decoder import MaskDecoder
from model.emosem.model_card import model_card
from model.emosem.projectors import EmotionProjector, PrefixProjector
from model.emosem.provenance import Provenance
from model.emosem.sca import CaptionMixer, ScaConfig
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json


class Segmentation(NamedTuple):
    """What the mask decoder says about Q queries."""

    mask_logits: Tensor
    """(Q, H, W) before the sigmoid, in SAM's padded square frame, 4 x grid pixels a side."""
    prefix: Tensor
    """(Q, P, C) f, the language model's prefix; P may be 0."""
    prefix_mask: Tensor | None
    """(Q, P) bool, False for padding behind a shorter prompt; None when there is none."""


class EmoSEM(nn.Module, ModelHubMixin, library_name="emosem"):
    """The network of Fig. 2 from cached features on. Built by `build_emosem`.

    ``save_pretrained(folder)`` and ``push_to_hub("owner/name")`` are huggingface_hub's; both take
    ``model_card_kwargs={"scores": ..., "method": ...}``, see `model_card`.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    """Of the language model; saved and loaded with the weights."""
    about: Provenance | None = None
    """What it was trained on; saved and loaded with the weights."""
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
        told = config.prefix != "none" and config.sca is None
        self.prefix_projector = PrefixProjector(config.dim, word_dim) if told else None
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
        return Segmentation(mask_logits, self._project(tokens), prefix_mask)

    def _segment_all(self, sam_BCHW: Tensor, rows_Q: Tensor, emotion_Q: Tensor) -> Segmentation:
        """All eight emotions of each image in one pass, then those asked for."""
        rows_B = torch.arange(len(sam_BCHW), device=sam_BCHW.device)
        no_prompt = sam_BCHW.new_zeros(len(sam_BCHW), 0, self.config.dim)
        decoded = self.mask_decoder(sam_BCHW, rows_B, no_prompt, None, masks=range(len(EMOTIONS)))
        asked_Q = rows_Q * len(EMOTIONS) + emotion_Q
        tokens = decoded.mask_tokens.flatten(0, 1).index_select(0, asked_Q)[:, None]
        mask_logits = decoded.mask_logits.flatten(0, 1).index_select(0, asked_Q)
        return Segmentation(mask_logits, self._project(tokens), None)

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
        words = self.captioner(prefix, mask, tokens_TL, clip_BKC[rows_Q[query_T]])
        return found.mask_logits, words

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights, tokenizer and config.json, each atomically, the config last: with it all is there.

        `ModelHubMixin.save_pretrained` has removed an older config.json before, and writes the card after.
        """
        (save_directory / "README.md").unlink(missing_ok=True)
        state = {
            name: tensor.cpu().contiguous()
            for name, tensor in self.state_dict().items()
            if name not in self._tied()
        }
        write_bytes(save_directory / "model.safetensors", save(state))
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        account = {"about": as_json(self.about)} if self.about else {}
        write_json(save_directory / "config.json", as_json(self.config) | account)

    def generate_model_card(
        self, scores: Mapping[str, Any] | None = None, method: str = "", **_: Any
    ) -> ModelCard:
        """README.md of a saved model; see `model_card`."""
        return model_card(self, scores, method)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the device is what our callers say second
        cls, folder: str | Path, device: str = "cpu", **hub: Any
    ) -> "EmoSEM":
        """A saved model in eval mode.

        Args:
            folder: where it was saved. A str "owner/name" that is no path here is a model on the Hugging
                Face hub, which is asked; a `Path` never is.
            device: torch device name.
            hub: keywords of `huggingface_hub.snapshot_download`: revision, token, cache_dir ...

        Raises:
            UserError: nothing there, or no model.
        """
        path = _download(folder, hub) if _is_on_hub(folder) else Path(folder)
        config, about = read_config(path)
        weights = path / "model.safetensors"
        try:
            state = load_file(weights)
            model = build_emosem(config)
            missing, extra = model.load_state_dict(state, strict=False)
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} holds no trained model that can be read: {error}") from None
        if set(missing) - model._tied() or extra:
            raise UserError(f"{weights} lacks {missing} and has unknown {extra}")
        model.captioner.gpt2.tie_weights()
        if (path / "tokenizer.json").is_file():
            model.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model.about = about
        return model.to(device).eval()

    def _tied(self) -> set[str]:
        """Weights stored under another name: GPT-2's output layer is its word embedding, unless untied."""
        tied = self.config.language_model.get("tie_word_embeddings", True)
        return {"captioner.gpt2.lm_head.weight"} if tied else set()


def _is_on_hub(folder: str | Path) -> bool:
    """Whether it can only be meant as a model on the hub: neither it nor the folder it were in is here."""
    if isinstance(folder, Path) or Path(folder).parent.exists():
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+", folder) is not None


def _download(name: str | Path, hub: Mapping[str, Any]) -> Path:
    try:
        return Path(snapshot_download(str(name), **hub))
    except Exception as error:  # an absent network, model or permission shows in many ways
        raise UserError(
            f"{name} is no folder here (`python cli.py train` makes runs/single, for instance), and no model "
            f"of that name could be had from the Hugging Face hub: {error}"
        ) from None


def _pad(prompts: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask, (E, N) int64 and bool; padding behind the shorter ones."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*prompt, *[prompt[-1]] * (length - len(prompt))] for prompt in prompts])
    mask = torch.tensor([[i < len(prompt) for i in range(length)] for prompt in prompts])
    return ids, mask


def build_emosem(config: EmoSEMConfig) -> EmoSEM:
    """A randomly initialised network; `model.checkpoint.new_model` builds it on SAM's decoder and GPT-2."""
    return EmoSEM(config)
