"""Settings, in order of precedence: arguments, `LONGREACH_*` in the environment, `longreach.toml` in the working
folder, then in the user's configuration folder, then the defaults below."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from longreach.errors import InputError

READER = ("retriever", "reranker", "chooser", "order", "answer", "k", "prompt_tokens", "least_relevance")
"""The settings that tell a reader what to do (`longreach.reader`)."""


class Settings(BaseSettings):
    """Everything a user may set once and forget. Method fields are spec strings (see `longreach.registry`)."""

    model_config = SettingsConfigDict(env_prefix="LONGREACH_", extra="forbid", validate_default=False)

    library: Path = Path(platformdirs.user_data_dir("longreach", appauthor=False)) / "default.library"
    cache: Path = Path(platformdirs.user_cache_dir("longreach", appauthor=False))
    store: Path | None = None
    store_gb: float = Field(default=8.0, ge=0)
    codec: str = "int8(group=64)"
    kv_gb: float | None = Field(default=None, gt=0)
    reuse: str = "auto"
    reuse_kl: float = Field(default=0.05, ge=0)
    reuse_agreement: float = Field(default=0.99, ge=0, le=1)
    serve_folder: Path = Path(platformdirs.user_data_dir("longreach", appauthor=False)) / "serve"
    data: Path | None = None
    model: str = "embedded"
    encoder: str = "embedded"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    kv_dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    api_key: str = Field(default="", repr=False)
    offline: bool = False

    chunker: str = "sentence"
    retriever: str = "hybrid"
    reranker: str = "none"
    chooser: str = "auto"
    order: str = "ends"
    k: int = Field(default=16, ge=1, le=1000)
    prompt_tokens: int = Field(default=2048, ge=64)
    answer: str = "auto"
    least_relevance: float = Field(default=0.4, ge=-1, le=1)

    @property
    def kv_store(self) -> Path:
        """The folder of the KV store: `store`, or one in the cache."""
        return self.cache / "kv" if self.store is None else self.store

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        tomls = [TomlConfigSettingsSource(settings_cls, path) for path in settings_files() if path.is_file()]
        return (init_settings, env_settings, *tomls)


def settings_files() -> list[Path]:
    """Where `longreach.toml` is looked for, the most binding first."""
    return [
        Path("longreach.toml"),
        Path(platformdirs.user_config_dir("longreach", appauthor=False)) / "longreach.toml",
    ]


def load_settings(**given: Any) -> Settings:
    """The settings in force; `given` values that are not None win. Raises InputError naming the setting at fault."""
    try:
        settings = Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Settings.model_fields)
        if first["type"] == "extra_forbidden":
            raise InputError(f"no setting is called {name!r}; known: {known}") from None
        raise InputError(f"setting {name} = {first['input']!r}: {first['msg']}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"the settings cannot be read: {error}") from None
    if settings.offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return settings
