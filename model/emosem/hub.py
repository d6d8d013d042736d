"""Models on the Hugging Face hub: which names mean one, how it gets here, and what a push needs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from huggingface_hub import constants, get_token, snapshot_download

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.sums import SUMS

ENCODERS = "encoders/*"
READ = ["*.json", "*.safetensors", "*.txt", "README.md", SUMS, "encoders/clip/bpe.txt.gz"]
"""What is fetched of a repository: what is read, and never code or pickles that lie beside it."""

CONNECT, ANSWER = 5.0, 20.0
"""Seconds for a connection to the hub, and for its answer."""
UNPUSHED = "nothing was written, for it could not be pushed"


def is_on_hub(folder: str | Path) -> bool:
    """Whether it can only be meant as a model on the hub: neither it nor the folder it were in is here."""
    if isinstance(folder, Path) or Path(folder).parent.exists():
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+", folder) is not None


def model_folder(name: str | Path, keywords: Mapping[str, Any] | None = None, encoders: bool = False) -> Path:
    """The folder of a saved model: itself, or what was fetched for "owner/name" of the hub.

    Args:
        name: a folder, or a model of the hub; see `is_on_hub`.
        keywords: of `huggingface_hub.snapshot_download`: revision, token, cache_dir ...
        encoders: fetch the frozen encoders too, where the repository holds them.

    Raises:
        UserError: the hub does not have it, or cannot be asked.
    """
    return download(str(name), keywords or {}, encoders) if is_on_hub(name) else Path(name)


def download(name: str, keywords: Mapping[str, Any], encoders: bool = False) -> Path:
    """Folder of a model of the hub, "owner/name"; see `model_folder`."""
    patterns = {"allow_patterns": READ} | ({} if encoders else {"ignore_patterns": [ENCODERS]})
    try:
        return Path(snapshot_download(name, **patterns | dict(keywords)))
    except Exception as error:  # an absent network, model or permission shows in many ways
        offline = " (HF_HUB_OFFLINE is set: only what was fetched before counts)" if _offline() else ""
        raise UserError(
            f"{name} is no folder here (`python cli.py train` makes runs/single, for instance), and no model "
            f"of that name could be had from {_endpoint()}{offline}: {error}"
        ) from None


def check_push(name: str) -> None:
    """Ask the hub, before anything is made, whether `name` may be pushed to.

    Raises:
        UserError: what is missing, all of it: a name like OWNER/NAME, a token that may write there,
            HF_ENDPOINT as an address, HF_HUB_OFFLINE unset.
        RunFailed: the hub cannot be reached.
    """
    if problems := _wrong_settings(name):
        raise UserError(f"{UNPUSHED}: {'; '.join(problems)}")
    _check_account(name, _account())


def _account() -> Any:
    """What the hub knows of the user. Raises `UserError`, `RunFailed`."""
    try:  # huggingface_hub would wait for ever
        answer = requests.get(
            f"{constants.ENDPOINT}/api/whoami-v2",
            headers={"Authorization": f"Bearer {get_token()}"},
            timeout=(CONNECT, ANSWER),
        )
    except requests.RequestException as error:
        raise RunFailed(
            f"{UNPUSHED}: {_endpoint()} cannot be reached ({type(error).__name__}). Check the network, the "
            "proxy (HTTPS_PROXY) and HF_ENDPOINT, or export without --push"
        ) from None
    if answer.status_code in (401, 403):
        raise UserError(
            f"{UNPUSHED}: {_endpoint()} does not accept your token. Run `hf auth login` again, or set "
            "HF_TOKEN to one that may write"
        )
    try:
        if answer.ok:
            return answer.json()
    except ValueError:
        pass
    raise RunFailed(
        f"{UNPUSHED}: {_endpoint()} answers {answer.status_code} {answer.reason} where a hub would say who "
        "you are. Check HF_ENDPOINT, or export without --push"
    )


def _wrong_settings(name: str) -> list[str]:
    """What is missing on this machine."""
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
        problems.append(f"{name!r} is no OWNER/NAME of the hub")
    parts = urlsplit(constants.ENDPOINT)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problems.append(f"HF_ENDPOINT is {constants.ENDPOINT!r}, which is no address like https://HOST")
    if _offline():
        problems.append("HF_HUB_OFFLINE is set: unset it to use the network")
    if get_token() is None:
        problems.append("there is no token: run `hf auth login`, or set HF_TOKEN")
    return problems


def _check_account(name: str, account: Any) -> None:
    """Raise `UserError` where the account says that it may not write to `name`."""
    if not isinstance(account, dict):
        return
    auth = account.get("auth")
    token = (auth.get("accessToken") or {}) if isinstance(auth, dict) else {}
    if token.get("role") == "read":
        raise UserError(
            f"{UNPUSHED}: your token for {_endpoint()} may only read. Make one that may write, at "
            f"{_endpoint()}/settings/tokens"
        )
    owner = name.partition("/")[0]
    owners = [account.get("name"), *(org.get("name") for org in account.get("orgs") or [])]
    if None not in owners and owner not in owners:
        raise UserError(
            f"{UNPUSHED}: you are {owners[0]} on {_endpoint()}, and {owner} is neither you nor one of your "
            f"organisations ({', '.join(owners[1:]) or 'none'})"
        )


def _offline() -> bool:
    return bool(constants.HF_HUB_OFFLINE)


def _endpoint() -> str:
    """The hub's address, without a password."""
    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
