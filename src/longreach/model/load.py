"""From a model's name to a network and a tokenizer in memory, ready to run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreach.errors import InputError, ModelError, NetworkError
from longreach.fetch import Report
from longreach.model import embedded, names
from longreach.model.device import choose_device, choose_dtype
from longreach.model.fingerprint import fingerprint
from longreach.model.shapes import CONTEXT

if TYPE_CHECKING:
    import torch

_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
_NOT_FILES = ["original/*", "onnx/*", "consolidated*"]


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in memory.

    `model` and `tokenizer` are transformers' objects; `end_tokens` end an answer; `fingerprint` is the same for the
    same weights, configuration and tokenizer; `context_length` is in tokens; `bytes` is what the weights take.
    """

    name: str
    model: Any
    tokenizer: Any
    end_tokens: frozenset[int]
    fingerprint: str
    context_length: int
    device: torch.device
    dtype: torch.dtype
    bytes: int


def load(
    name: str,
    *,
    cache: Path,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    report: Report | None = None,
) -> LoadedModel:
    """Load `embedded`, a folder in transformers' format, a `.gguf` file or a model of the Hugging Face hub.

    Raises ModelError for a model that is not there, is damaged or is no causal language model, NetworkError where it
    must be fetched and cannot, InputError for a device or dtype that is not there.
    """
    which = names.kind(name)
    if which == "url":
        raise InputError(f"{name} is a server: a model in its memory cannot be loaded here")
    where = choose_device(device)
    if which == "gguf":
        from longreach.model.load_gguf import folder_of

        folder, gguf_file = folder_of(Path(name).expanduser(), cache)
    else:
        gguf_file = None
        if which == "embedded":
            folder = embedded.ensure(cache=cache, offline=offline, report=report)
        else:
            folder = Path(name).expanduser() if which == "folder" else _from_hub(name, offline)
        _check(name, folder)
    kind_of_number = choose_dtype(dtype, where, _weight_bytes(folder))
    _quieten()
    model = _network(name, folder, gguf_file, kind_of_number).to(where).eval()
    model.requires_grad_(False)
    tokenizer = _tokenizer(name, folder, gguf_file)
    text_config = model.config.get_text_config(decoder=True)
    return LoadedModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        end_tokens=_end_tokens(model, tokenizer),
        fingerprint=fingerprint(Path(name).expanduser() if gguf_file else folder),
        context_length=int(getattr(text_config, "max_position_embeddings", None) or CONTEXT),
        device=where,
        dtype=kind_of_number,
        bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
    )


def tokenizer_of(name: str, cache: Path) -> Any:
    """The tokenizer of the model `name`, transformers' object, without its weights. Nothing is fetched or converted.
    Raises ModelError where it is not at hand, or cannot be read."""
    _quieten()
    if names.kind(name) == "gguf":
        file = Path(name).expanduser()
        return _tokenizer(name, file.parent, file.name)
    return _tokenizer(name, files_of(name, cache), None)


def files_of(name: str, cache: Path) -> Path:
    """The folder or the GGUF file that `fingerprint` of the loaded model would be of. Nothing is fetched or converted.
    Raises ModelError where it is not at hand."""
    if names.kind(name) == "gguf":
        from longreach.model.load_gguf import converted

        file = Path(name).expanduser()
        done = converted(file, cache)
        return done if done.is_dir() else file
    folder = names.folder(name, cache)
    if folder is None:
        raise ModelError(f"{name} is not at hand: fetch the model first")
    return folder


def _check(name: str, folder: Path) -> None:
    """Whether the folder holds what a causal language model needs, before anything heavy is imported."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{name} is no model: there is no config.json in {folder}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        architectures = config.get("architectures") or []
    except (ValueError, AttributeError):
        raise ModelError(f"{file} is damaged: it is not a JSON object") from None
    writers = ("CausalLM", "LMHead", "ConditionalGeneration")
    if architectures and not any(writer in architecture for architecture in architectures for writer in writers):
        raise ModelError(f"{name} is no causal language model but a {architectures[0]}: it cannot write answers")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{name} has no weights: there is no .safetensors file in {folder}")


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for pattern in ("*.safetensors", "*.gguf") for file in folder.glob(pattern))


def _network(name: str, folder: Path, gguf_file: str | None, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    extra: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    load_weights: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, told = load_weights(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, output_loading_info=True, **extra
        )
    except SafetensorError as error:
        raise ModelError(f"the weights of {name} are damaged ({error}): fetch them again") from None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"{name} cannot be loaded: {_first_line(error)}") from None
    if told["missing_keys"]:
        missing = sorted(told["missing_keys"])
        raise ModelError(f"{name} lacks {len(missing)} of its weights, the first of them {missing[0]}: fetch it again")
    if told.get("mismatched_keys"):
        raise ModelError(f"the weights of {name} do not have the shapes that its config.json says: fetch it again")
    return model


def _tokenizer(name: str, folder: Path, gguf_file: str | None) -> Any:
    if gguf_file:
        from longreach.model.load_gguf import tokenizer_of

        return tokenizer_of(folder / gguf_file)
    try:
        if _plain(folder):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises Exception itself for a damaged file
        raise ModelError(f"the tokenizer of {name} cannot be loaded: {_first_line(error)}") from None


def _plain(folder: Path) -> bool:
    """Whether `tokenizer.json` says it all, so that the search for a tokenizer class (0.3 s) can be spared."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
    except (OSError, ValueError, AttributeError):
        return False


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    said = getattr(model.generation_config, "eos_token_id", None)
    if said is None:
        said = model.config.eos_token_id
    ends = [said] if isinstance(said, int) else list(said or ())
    return frozenset(ends or [at for at in (tokenizer.eos_token_id,) if at is not None])


def _from_hub(name: str, offline: bool) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, allow_patterns=_FILES, ignore_patterns=_NOT_FILES, local_files_only=offline)
        )
    except hub.GatedRepoError:
        raise ModelError(f"accept the terms of {name} on huggingface.co, then log in with `hf auth login`") from None
    except hub.RepositoryNotFoundError:
        raise ModelError(f"no model is called {name!r}: it is neither a folder nor known to huggingface.co") from None
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled):
        reason = "offline is set" if offline else "huggingface.co cannot be reached"
        raise NetworkError(f"{name} is no folder and not in the cache of the Hugging Face hub, and {reason}") from None
    except hub.HFValidationError:
        raise InputError(f"{name!r} is neither a folder nor a name that huggingface.co could know") from None
    except OSError as error:
        raise NetworkError(f"{name} cannot be fetched from huggingface.co: {_first_line(error)}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "httpcore"):
            raise
        raise NetworkError(f"huggingface.co cannot be reached for {name}: {_first_line(error)}") from None


def _quieten() -> None:
    """Loading bars and hints of transformers are for notebooks; what matters is raised here as an error."""
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
