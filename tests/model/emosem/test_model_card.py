"""The model to take away: saved and loaded, its account of itself, its card, the hub."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, hub_mixin
from markdown_it import MarkdownIt

from model.emosem.export import Push, card_scores, export
from model.emosem.model_card import escape, model_card
from model.emosem.network import EmoSEM
from model.emosem.pretrained import build_pretrained
from model.emosem.provenance import ClipProvenance, DatasetProvenance, Provenance, SamProvenance
from model.train.params import TrainParams
from model.train.provenance import describe_run
from pipeline.common.digests import seal
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_json
from pipeline.common.fingerprint import sha256_file
from pipeline.reader.index import Index
from tests.worlds import trained_shards

SUMMED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
FILES = {*SUMMED, "README.md", "SHA256SUMS"}
DATASET = DatasetProvenance(
    name="emosem-gallery",
    description="Drawn scenes.",
    license="https://spdx.org/licenses/CC0-1.0.html",
    url="https://example.org/",
    citation="Nobody: Nothing",
    artworks=7,
    masks=14,
    utterances=21,
    splits={"train": {"artworks": 5, "masks": 10, "utterances": 15}},
    drawn=True,
)
ABOUT = Provenance(
    sam=SamProvenance("tiny", "5a" * 32),
    clip=ClipProvenance("tiny", "c1" * 32, normalisation="imagenet"),
    dataset=DATASET,
    variant="single",
    training={"epochs": 3, "binarise": None},
    started_from={"SAM": "5a" * 32},
    validation={"seg_pr50": 12.5},
    versions={"torch": "2"},
)
SCORES: dict[str, Any] = {
    "data": "built-in gallery",
    "split": "test",
    "backbones": "tiny (not the paper's)",
    "rows": [
        {"method": "clip+vinvl", "items": 9, "seg_pr25": 61.0},
        {"method": "emosem-single", "items": 9, "seg_pr25": 71.234, "bleu4": 8.19},
    ],
}


def card_of(model: EmoSEM, scores: dict[str, Any] | None = None, method: str = "") -> ModelCard:
    """The card of a model that scored so, in the row `method`."""
    count = sum(p.numel() for p in model.parameters())
    return model_card(model.config, model.provenance, count, scores and card_scores(scores, method))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EmoSEM:
    parts = trained_shards.backbones(tmp_path_factory.mktemp("weights"))
    torch.manual_seed(1)
    made = build_pretrained(
        *parts,
        paradigm="single",
        prefix="mask+prompt",
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=trained_shards.WIDTH,
    ).eval()
    made.provenance = ABOUT
    return made


def front_matter(text: str) -> dict[str, Any]:
    return ModelCard(text).data.to_dict()


# ---- saved and loaded -----------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(model: EmoSEM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    for folder in (tmp_path / "run", str(tmp_path / "run")):
        loaded = EmoSEM.from_pretrained(folder)
        assert loaded.provenance == ABOUT and loaded.config == model.config and not loaded.training
        state = loaded.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    loaded.save_pretrained(tmp_path / "again")
    for name in FILES - {"tokenizer_config.json", "SHA256SUMS"}:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_folder_of_an_older_code_loads_and_a_newer_account_does_no_harm(
    model: EmoSEM, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "SHA256SUMS").unlink()
    older = {k: v for k, v in config.items() if k not in ("about", "sca", "ambiguity_aware")}
    write_json(tmp_path / "run" / "config.json", older)
    (tmp_path / "run" / "README.md").unlink()
    assert EmoSEM.from_pretrained(tmp_path / "run").provenance is None
    config["about"]["sam"]["new"] = config["about"]["new"] = 1
    write_json(tmp_path / "run" / "config.json", config)
    assert EmoSEM.from_pretrained(tmp_path / "run").provenance == ABOUT


@pytest.mark.parametrize("name", sorted(SUMMED))
def test_a_flipped_bit_is_told_where_the_file_is_read(model: EmoSEM, tmp_path: Path, name: str) -> None:
    model.save_pretrained(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        data = bytearray(whole)
        data[place] ^= 1 << int(place) % 8
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{tmp_path / name} is not the file that was written"):
            EmoSEM.from_pretrained(tmp_path)
    (tmp_path / name).write_bytes(whole)
    EmoSEM.from_pretrained(tmp_path)


def test_a_model_is_replaced_as_a_whole(model: EmoSEM, tmp_path: Path) -> None:
    """Another name of the old files keeps them, a failure leaves the old model, and nothing is left over."""
    model.save_pretrained(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "cache", copy_function=os.link)
    before = {file.name: file.read_bytes() for file in (tmp_path / "cache").iterdir()}

    def full(_: str | Path) -> None:
        raise Exception("No space left on device (os error 28)")  # as tokenizers tell it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.tokenizer), "save_pretrained", lambda _, folder: full(folder))
        with pytest.raises(RunFailed, match="disk or your quota is full"):
            model.save_pretrained(tmp_path / "run")
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    model.save_pretrained(
        tmp_path / "run", model_card_kwargs={"scores": card_scores(SCORES, "emosem-single")}
    )
    assert {file.name: file.read_bytes() for file in (tmp_path / "cache").iterdir()} == before
    assert {file.name for file in (tmp_path / "run").iterdir()} == FILES


def test_saving_again_leaves_nothing_of_the_old_model(model: EmoSEM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, model_card_kwargs={"scores": card_scores(SCORES, "emosem-single")})
    assert "71.23" in (tmp_path / "README.md").read_text()
    model.save_pretrained(tmp_path)
    assert "71.23" not in (tmp_path / "README.md").read_text()


def test_what_is_no_model_is_named(model: EmoSEM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "SHA256SUMS").unlink()  # as in a folder of others, which says nothing of its bytes
    cases = [("no-such-folder", None, b"", "is no folder; name that of a trained model")]
    for name, file, content, message in [
        *cases,
        ("empty", "config.json", None, "holds no trained model"),
        ("garbage", "config.json", b"{", "holds no trained model"),
        ("list", "config.json", b"[]", "holds no trained model"),
        ("unknown", "config.json", b'{"dimm": 3}', "dimm"),
        ("cut", "model.safetensors", b"\x08\0\0", "no trained model that can be read"),
        ("none", "model.safetensors", None, "no trained model that can be read"),
    ]:
        folder = tmp_path / name
        if file is not None:
            shutil.copytree(tmp_path / "run", folder)
            (folder / file).unlink()
            if content is not None:
                (folder / file).write_bytes(content)
        with pytest.raises(UserError, match=message):
            EmoSEM.from_pretrained(folder)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    write_json(tmp_path / "run" / "config.json", config | {"mixer_mlp_dim": 16})
    with pytest.raises(UserError, match="size mismatch"):
        EmoSEM.from_pretrained(tmp_path / "run")


def test_the_hub_is_asked_for_nothing_that_could_be_a_path_here(
    tmp_path: Path, model: EmoSEM, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    model.save_pretrained(tmp_path / "there")

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        if name == "somebody/unknown":
            raise OSError("offline")
        return str(tmp_path / "there")

    monkeypatch.setattr("model.emosem.hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for missing in ("runs/single", "single", Path("owner/name"), "a/b/c", "/owner/name"):
        with pytest.raises(UserError, match="is no folder"):
            EmoSEM.from_pretrained(missing)
    assert not asked
    assert EmoSEM.from_pretrained("owner/name").provenance == ABOUT
    with pytest.raises(UserError, match=r"somebody/unknown is no folder here.*offline"):
        EmoSEM.from_pretrained("somebody/unknown")


class Hub:
    """Stands in for the hub's API: keeps what is uploaded."""

    uploads: dict[str, dict[str, bytes]]

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        if repo_id.startswith("forbidden"):
            raise PermissionError("403")
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> str:
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        type(self).uploads[repo_id] = files
        return f"https://hub/{repo_id}"


def test_pushed_is_the_same_folder(model: EmoSEM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    monkeypatch.setattr("model.emosem.export.check_push", lambda _: None)  # tests/model/emosem/test_hub.py
    Hub.uploads = {}
    model.save_pretrained(tmp_path / "run")
    model.push_to_hub("owner/plain")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert Hub.uploads["owner/plain"] == saved

    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "metrics").mkdir()
    assert export(tmp_path / "run", tmp_path / "bare", tmp_path / "metrics")["scores"] == "none yet"
    write_json(tmp_path / "metrics" / "score.json", seal(SCORES))
    done = export(
        tmp_path / "run", tmp_path / "out", tmp_path / "metrics", Push("owner/scored", private=True)
    )
    assert done["hub"] == "https://hub/owner/scored"
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    pushed = Hub.uploads["owner/scored"]
    assert pushed == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert b"This model is the row emosem-single." in pushed["README.md"]
    with pytest.raises(RunFailed, match="is written, but could not be pushed to forbidden/x: 403"):
        export(tmp_path / "run", tmp_path / "out", tmp_path / "metrics", Push("forbidden/x"))
    with pytest.raises(UserError, match="cannot write to the folder"):
        export(tmp_path / "run", tmp_path / "metrics" / "score.json" / "out", tmp_path / "metrics")
    with pytest.raises(UserError, match="is the run itself"):
        export(tmp_path / "run", tmp_path / "run", tmp_path / "metrics")


# ---- the card -------------------------------------------------------------------------------------------


def test_front_matter_is_what_the_hub_reads(model: EmoSEM) -> None:
    card = card_of(model, SCORES, "emosem-single")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "emosem",
        "image-segmentation",
    )
    assert {(r.metric_type, r.metric_value) for r in data.eval_results} == {
        ("seg_pr25", 71.23),
        ("bleu4", 8.2),
    }
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()
    real = dataclasses.replace(ABOUT, dataset=dataclasses.replace(DATASET, drawn=False))
    other = front_matter(str(card_of(_with(model, real))))
    assert other["license"] == "other" and other["license_name"] and "model-index" not in other


def test_the_card_says_what_the_model_is_of(model: EmoSEM) -> None:
    text = str(card_of(model, SCORES, "emosem-single"))
    for word in (
        "tiny",
        "5a" * 32,
        "c1" * 32,
        "imagenet",
        "| train | 5 | 10 | 15 |",
        "| epochs | 3 |",
        "| binarise | null |",
        r"| validation: seg\_pr50 | 12.5 |",
        "| emosem-single | 9 |",
        "CC0-1.0",
        "not to be believed",
        "Zhang, Li, Guo, Wang",
        f"{sum(p.numel() for p in model.parameters()):,}",
    ):
        assert word in text, word
    bare = str(card_of(_with(model, None)))
    assert "Which they were was not noted" in bare and "Not measured yet" in bare
    assert front_matter(bare)["license"] == "other"


def render(card: str) -> str:
    """What stands under the front matter as HTML, with whatever raw HTML it holds."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(ModelCard(card).text)


HOSTILE = (
    "---\nlicense: mit\n---\n# <script>alert(1)</script> | [x](javascript:alert(1)) `c` *e* _u_ &lt; ![i](u)"
)


def test_words_of_the_data_stay_words(model: EmoSEM) -> None:
    dataset = dataclasses.replace(
        DATASET, drawn=False, name=HOSTILE, description=HOSTILE, license=HOSTILE, url=HOSTILE
    )
    about = dataclasses.replace(
        ABOUT,
        dataset=dataclasses.replace(dataset, splits={HOSTILE: DATASET.splits["train"]}),
        training={HOSTILE: HOSTILE, "nested": {"a": HOSTILE}},
    )
    scores = SCORES | {"data": HOSTILE, "rows": [{"method": HOSTILE, "items": 1, "seg_pr25": 1.0}]}
    card = str(card_of(_with(model, about), scores, HOSTILE))
    assert front_matter(card)["license"] == "other"
    page = render(card)
    harmless = dataclasses.replace(ABOUT, dataset=dataclasses.replace(DATASET, drawn=False))
    sound = render(str(card_of(_with(model, harmless), SCORES, "emosem-single")))
    assert "<script" not in page and "<a " not in page and "<img" not in page
    for tag in ("<h1>", "<h2>", "<hr", "<code>", "<em>", "<table>"):
        assert page.count(tag) == sound.count(tag), tag


@pytest.mark.parametrize("text", [HOSTILE, "a\\|b", "~~x~~ $y$", "plain words, 3.5 (yes)"])
def test_escaped_text_reads_as_it_was(text: str) -> None:
    """A renderer gives back the words, as one paragraph and nothing else."""
    (_, inline, _) = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(f"x {escape(text)}")
    assert inline.children is not None
    shown = "".join(part.content for part in inline.children)
    assert {part.type for part in inline.children} <= {"text", "text_special"}
    assert shown == "x " + " ".join(text.split())


def _with(model: EmoSEM, about: Provenance | None) -> Any:
    """What a card is written of."""
    return type("Model", (), {"provenance": about, "config": model.config, "parameters": model.parameters})


# ---- the account ----------------------------------------------------------------------------------------


def test_a_run_is_described_from_its_shards(tmp_path: Path) -> None:
    sam, language_model = trained_shards.backbones(tmp_path / "weights")
    paths = trained_shards.shards(tmp_path, {"train": 3, "val": 1})
    index = Index.load(paths.step("shards"))

    def account() -> Provenance:
        return describe_run(
            index,
            variant="multi",
            training=TrainParams(epochs=2),
            sam_checkpoint=sam,
            language_model=language_model,
            validation={"seg_pr25": 1.5},
            threads=3,
        )

    found = account()
    assert found.sam is None and found.clip is None and found.dataset is None  # the tiny world says nothing
    assert found.threads == 3 and Provenance().threads is None
    assert found.training["epochs"] == 2 and "variants" not in found.training
    assert found.started_from["SAM"] == sha256_file(sam)
    card = {"name": "n", "description": "d", "license": "l", "url": "u", "citeAs": "c", "version": "1"}
    counts = {"artworks": 4, "masks": 8, "utterances": 12, "splits": {"train": {"artworks": 3}}, "x": 1}
    write_json(paths.step("shards") / "croissant.json", card)
    write_json(paths.step("shards") / "stats.json", counts)
    dataset = account().dataset
    assert dataset is not None and (dataset.artworks, dataset.citation) == (4, "c")
    assert not dataset.drawn and dataset.name == "n"
    mark = {"version": 1, "seed": 7, "artworks": 4}
    for drawn in (["wikiart"], ["apolo", "artemis", "wikiart"]):
        write_json(paths.step("shards") / "stats.json", counts | {"drawn": dict.fromkeys(drawn, mark)})
        dataset = account().dataset
        assert dataset is not None and dataset.drawn == ("artemis" in drawn)
    assert np.isclose(found.validation["seg_pr25"], 1.5) and len(EMOTIONS) == 8


def test_the_encoders_are_those_of_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sam, language_model = trained_shards.backbones(tmp_path / "weights")
    paths = trained_shards.shards(tmp_path, {"train": 1})
    index = Index.load(paths.step("shards"))
    card = {
        "height": 3,
        "sam": {"arch": "vit_b", "sha256": "ab", "dtype": "int8", "precision": "bf16", "img_size": 1024},
        "clip": {"name": "ViT-B-16", "sha256": "cd", "dtype": "float16"},  # as an older code wrote it
    }
    monkeypatch.setattr(index, "read", lambda *_: json.dumps(card).encode())
    found = describe_run(
        index,
        variant="",
        training=TrainParams(),
        sam_checkpoint=sam,
        language_model=language_model,
        validation={},
    )
    assert found.sam == SamProvenance("vit_b", "ab", "int8", "bf16")
    assert found.clip == ClipProvenance("ViT-B-16", "cd", "float32", "clip")
