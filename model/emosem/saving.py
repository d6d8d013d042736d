"""EmoSEM to a folder and back: model.safetensors, tokenizer files, config.json, and README.md for the hub.

SHA256SUMS beside them holds what each but the README was when it was written; loading compares.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from transformers import PreTrainedTokenizerBase

from model.emosem.captioner import Captioner
from model.emosem.config import DAMAGED, EmoSEMConfig, read_config
from model.emosem.hub import model_folder
from model.emosem.model_card import FOLDER, CardScores, model_card
from model.emosem.provenance import Provenance
from pipeline.backbones.language_model import load_tokenizer, refuse_code
from pipeline.common.errors import UserError
from pipeline.common.files import replace_files, write_bytes, write_json
from pipeline.common.fingerprint import as_json
from pipeline.common.sums import check_sum, write_sums


class SavedModel(nn.Module, ModelHubMixin):
    """What `EmoSEM` needs to be saved and loaded.

    ``save_pretrained(folder)`` and ``push_to_hub("owner/name")`` are huggingface_hub's; both take
    ``model_card_kwargs={"scores": CardScores(...)}``.
    """

    config: EmoSEMConfig
    captioner: Captioner
    tokenizer: PreTrainedTokenizerBase | None = None
    """Of the language model; saved and loaded with the weights."""
    provenance: Provenance | None = None
    """What it was trained on; saved and loaded with the weights."""
    beside: Mapping[str, Path] = {}
    """Name in the folder -> file that is copied there when it is saved: `export` lays the encoders so."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Save to a folder, see `ModelHubMixin.save_pretrained`.

        Nothing is written in place, and config.json comes last: with it all is there. Raises `UserError`,
        `RunFailed` as `replace_files`.
        """
        folder = Path(save_directory)
        options.setdefault("repo_id", folder.name)
        with replace_files(folder, last="config.json") as temporary:
            return super().save_pretrained(temporary, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights, tokenizer, config.json and SHA256SUMS; the mixin writes the card after."""
        state = {
            name: tensor.cpu().contiguous()
            for name, tensor in self.state_dict().items()
            if name not in self._tied()
        }
        write_bytes(save_directory / "model.safetensors", save(state))
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        for name, file in self.beside.items():
            (save_directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, save_directory / name)
        provenance = {"about": as_json(self.provenance)} if self.provenance else {}
        write_json(save_directory / "config.json", as_json(self.config) | provenance)
        files = (file for file in save_directory.rglob("*") if file.is_file())
        write_sums(save_directory, [file.relative_to(save_directory).as_posix() for file in files])

    def generate_model_card(
        self, scores: CardScores | None = None, name: str = FOLDER, **_: Any
    ) -> ModelCard:
        """README.md of a saved model; see `model_card`."""
        count = sum(p.numel() for p in self.parameters())
        return model_card(self.config, self.provenance, count, scores, name)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the device is what our callers say second
        cls, folder: str | Path, device: str = "cpu", **hub: Any
    ) -> Self:
        """A saved model in eval mode.

        Args:
            folder: where it was saved. A str "owner/name" that is no path here is a model on the Hugging
                Face hub, which is asked; a `Path` never is.
            device: torch device name.
            hub: keywords of `huggingface_hub.snapshot_download`: revision, token, cache_dir ...

        Raises:
            UserError: nothing there, no model, or not the bytes that were saved.
        """
        path = model_folder(folder, hub)
        refuse_code(path)
        config, provenance = read_config(path)
        weights, tokenizer = path / "model.safetensors", path / "tokenizer.json"
        check_sum(weights, DAMAGED)
        try:
            state = load_file(weights)
            model = cls(config)
            missing, extra = model.load_state_dict(state, strict=False)
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} holds no trained model that can be read: {error}") from None
        if set(missing) - model._tied() or extra:
            raise UserError(f"{weights} lacks {missing} and has unknown {extra}")
        model.captioner.gpt2.tie_weights()
        if tokenizer.is_file():
            for file in path.glob("tokenizer*.json"):
                check_sum(file, DAMAGED)
            model.tokenizer = load_tokenizer(path)
        model.provenance = provenance and provenance.without_encoders()
        return model.to(device).eval()

    def _tied(self) -> set[str]:
        """Weights stored under another name: GPT-2's output layer is its word embedding, unless untied."""
        tied = self.config.language_model.get("tie_word_embeddings", True)
        return {"captioner.gpt2.lm_head.weight"} if tied else set()
