"""A low-rank adapter: what a model adds to some of its products while it reads passages apart from each other.

LoRA, Hu et al. 2021, arXiv 2106.09685: a product `W x` becomes `W x + scale * up (down x)`. The weights stay as they
are, and where the adapter is not applied nothing of it is left: answers without it are the original model's to the bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.nn import functional

from longreach.errors import ModelError

Scope: TypeAlias = Literal["passages", "everything"]
"""What is computed with the adapter: passages alone, or the question and the answer as well."""

_SCOPES: tuple[Scope, ...] = get_args(Scope)
_FORMAT = "longreach-adapter-1"
_SAMPLED = 64


@dataclass(frozen=True)
class Adapter:
    """`down [rank, inputs]` and `up [outputs, rank]` by the name of the linear module whose product they change.

    `base` names the weights it was made for (`weights_of`); `notes` say how it was made.
    """

    down: Mapping[str, torch.Tensor]
    up: Mapping[str, torch.Tensor]
    scale: float
    scope: Scope
    base: str
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fresh(
        cls, model: nn.Module, modules: Sequence[str], rank: int, scale: float, scope: Scope, seed: int
    ) -> Adapter:
        """An adapter that changes nothing yet, in float32 on the model's device, to be trained."""
        generator = torch.Generator().manual_seed(seed)
        down, up = {}, {}
        for name in modules:
            weight = _linear(model, name).weight
            start = torch.randn(rank, weight.shape[1], generator=generator) * weight.shape[1] ** -0.5
            down[name] = start.to(weight.device).requires_grad_()
            up[name] = torch.zeros(weight.shape[0], rank, device=weight.device).requires_grad_()
        return cls(down, up, scale, scope, weights_of(model))

    @classmethod
    def load(cls, file: Path) -> Adapter:
        """Read what `save` wrote. Raises ModelError where there is none, or it is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as stored:
                told: dict[str, str] = dict(stored.metadata() or {})
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"the adapter {file} cannot be read: {error}") from None
        names = [key.removesuffix(".down") for key in tensors if key.endswith(".down")]
        scope = next((scope for scope in _SCOPES if scope == told.get("scope")), None)
        whole = len(tensors) == 2 * len(names) and {"scale", "base"} <= told.keys()
        if told.get("format") != _FORMAT or scope is None or not whole:
            raise ModelError(f"{file} is no adapter of this version of Longreach: make it again")
        down, up = ({name: tensors[f"{name}.{part}"] for name in names} for part in ("down", "up"))
        notes = {key: text for key, text in told.items() if key not in ("format", "scope", "scale", "base")}
        return cls(down, up, float(told["scale"]), scope, told["base"], notes)

    def save(self, file: Path) -> None:
        """Write it in float16, which `load` reads. Raises ModelError where that is not possible."""
        from safetensors.torch import save_file

        tensors = {f"{name}.down": part for name, part in self.down.items()}
        tensors |= {f"{name}.up": part for name, part in self.up.items()}
        halves = {key: part.detach().to("cpu", torch.float16).contiguous() for key, part in tensors.items()}
        told = {**self.notes, "format": _FORMAT, "scale": str(self.scale), "scope": self.scope, "base": self.base}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(halves, file, metadata=told)
            file.chmod(0o644)  # it is written readable by its owner alone
        except OSError as error:
            raise ModelError(f"the adapter cannot be written to {file}: {error}") from None

    def on(self, model: nn.Module) -> Adapter:
        """The same, in the model's dtype on its device. Raises ModelError where it was made for other weights."""
        if self.base != weights_of(model):
            raise ModelError(f"the adapter was made for the weights {self.base}, not for those of this model")
        one = next(model.parameters())
        down, up = ({name: t.detach().to(one) for name, t in part.items()} for part in (self.down, self.up))
        return replace(self, down=down, up=up)

    def trainable(self, model: nn.Module) -> Adapter:
        """The same in float32 on the model's device, to be trained further. Raises ModelError as `on` does."""
        laid = self.on(model)
        down, up = (
            {name: part[name].to(laid.down[name].device, torch.float32).requires_grad_() for name in part}
            for part in (self.down, self.up)
        )
        return replace(self, down=down, up=up)

    @property
    def name(self) -> str:
        """16 hexadecimal digits for what it does, in the dtype that it is in."""
        digest = hashlib.sha256(f"{self.scope} {self.scale}".encode())
        for part in (self.down, self.up):
            for key in sorted(part):
                digest.update(key.encode() + part[key].detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def bytes(self) -> int:
        """What it takes as it is."""
        return sum(t.numel() * t.element_size() for part in (self.down, self.up) for t in part.values())

    @contextmanager
    def applied(self, model: nn.Module, first: int | None = None) -> Iterator[None]:
        """While this is open, the model computes with the adapter: the `first` tokens of every forward, or all.

        It is laid on `model` itself: whoever shares the model must not run it meanwhile. Quick forms of the model
        (`longreach.model.fast`) are recordings and know nothing of it: run the model's own forward, or `with_adapter`.
        """
        with ExitStack() as laid:
            for name in self.down:
                hook = _Hook(self.down[name], self.up[name], self.scale, first)
                laid.enter_context(_linear(model, name).register_forward_hook(hook))
            yield


@dataclass(frozen=True)
class _Hook:
    """Called by PyTorch after a linear module, with `[1, tokens, inputs]` and `[1, tokens, outputs]`."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    first: int | None

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        read = inputs[0][:, : self.first]
        added = functional.linear(functional.linear(read, self.down.to(read)), self.up.to(read)) * self.scale
        if self.first is None:
            return output + added
        return torch.cat([output[:, : self.first] + added, output[:, self.first :]], 1)


def weights_of(model: Any) -> str:
    """16 hexadecimal digits for a model's weights, however they were stored: a sample of every matrix, in bfloat16."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            flat = weight.detach().flatten()
            sample = flat[:: max(1, len(flat) // _SAMPLED)].to("cpu", torch.bfloat16).view(torch.int16)
            digest.update(f"{name} {tuple(weight.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def _linear(model: nn.Module, name: str) -> nn.Linear:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise ModelError(f"the adapter is for a model that has {name}; this one has not") from None
    if not isinstance(module, nn.Linear):
        raise ModelError(f"{name} is no linear module but a {type(module).__name__}: it cannot be adapted")
    return module
