"""A trained network in one file: weights, classes and how its input is made, ready to classify.

::

    classifier = Classifier.from_file("trained/weights.safetensors")
    for name, probability in classifier.classify(["new/001.png", "new/002.jpg"]):
        print(name, probability)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ssl_core.data.augment import normalise
from ssl_core.data.folder import read_image
from ssl_core.data.images import Images
from ssl_core.data.recipe import Normalisation, Preprocessing, Whitening
from ssl_core.errors import UserError
from ssl_core.models.wide_resnet import build_model

METADATA = "tune_ssl"  # one key only: safetensors writes several in an order that changes
WHITENING = ("whitening.mean", "whitening.matrix")
"""Beside the network's tensors, where its input is whitened."""
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a file of weights says of its network.

    ``model`` as ``wrn-28-2``; ``image_size`` the side of its square input in pixels.
    """

    model: str
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    normalisation: Preprocessing

    def to_json(self) -> str:
        """Return the card as text; a whitening is no part of it, but ``tensors`` are."""
        values: dict[str, Any] = {
            "model": self.model,
            "classes": list(self.class_names),
            "channels": self.channels,
            "image_size": self.image_size,
        }
        if isinstance(self.normalisation, Normalisation):
            values["mean"] = list(self.normalisation.mean)
            values["std"] = list(self.normalisation.std)
        return json.dumps(values)

    def tensors(self) -> dict[str, Tensor]:
        """Return what of the input's preprocessing is stored as tensors, by name."""
        if isinstance(self.normalisation, Normalisation):
            return {}
        arrays = (self.normalisation.mean, self.normalisation.matrix)
        return {name: torch.tensor(array) for name, array in zip(WHITENING, arrays, strict=True)}

    @classmethod
    def from_json(cls, text: str, whitening: Whitening | None = None) -> Card:
        """Return the card that ``to_json`` wrote, of a network whose input is whitened or not."""
        values = json.loads(text)
        if whitening is None:
            normalisation: Preprocessing = Normalisation(
                mean=tuple(values["mean"]), std=tuple(values["std"])
            )
        else:
            normalisation = whitening
        return cls(
            model=values["model"],
            class_names=tuple(values["classes"]),
            channels=values["channels"],
            image_size=values["image_size"],
            normalisation=normalisation,
        )


def weights_to_bytes(network: nn.Module, card: Card) -> bytes:
    """Return a network's weights and its card as safetensors."""
    state = network.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    stored: bytes = save(tensors | card.tensors(), metadata={METADATA: card.to_json()})
    return stored


def _whitening_of(tensors: dict[str, Tensor]) -> Whitening | None:
    """Take the whitening out of a file's tensors; None where it has none."""
    if WHITENING[0] not in tensors:
        return None
    mean, matrix = (tensors.pop(name).numpy() for name in WHITENING)
    return Whitening(mean=mean, matrix=matrix)


class Classifier:
    """A trained network on the CPU, or on a device given, in evaluation mode."""

    def __init__(self, network: nn.Module, card: Card, device: str = "cpu") -> None:
        self.card = card
        self.network = network.eval().to(device)
        self._device = device

    @classmethod
    def from_file(cls, path: str | Path, device: str = "cpu") -> Classifier:
        """Return the network that ``tune-ssl train`` or a search left in a file.

        Raises:
            UserError: the file is missing, damaged, or not one of ours.
        """
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(METADATA)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{str(path)!r} cannot be read as weights ({error}); allowed: a weights.safetensors that "
                "'tune-ssl train' wrote; check the path."
            ) from error
        if text is None:
            raise UserError(
                f"{str(path)!r} does not say what network it belongs to; allowed: a weights.safetensors "
                "that 'tune-ssl train' wrote; train again."
            )
        card = Card.from_json(text, _whitening_of(tensors))
        network = build_model(
            card.model,
            in_channels=card.channels,
            num_classes=len(card.class_names),
            generator=torch.Generator(),
        )
        network.load_state_dict(tensors)
        return cls(network, card, device)

    @torch.no_grad()
    def probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        """Return (N, classes) probabilities of (N, channels, side, side) uint8 images.

        Raises:
            UserError: the images have another shape or type.
        """
        card = self.card
        expected = (card.channels, card.image_size, card.image_size)
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise UserError(
                f"images are {images.dtype} of shape {images.shape}; allowed: uint8 of shape (N, "
                f"{', '.join(map(str, expected))}); convert them."
            )
        batches = [
            self.network(normalise(torch.from_numpy(batch).to(self._device), card.normalisation))
            for batch in np.array_split(images, range(BATCH, len(images), BATCH))
        ]
        probabilities: npt.NDArray[np.float32] = torch.cat(batches).softmax(dim=1).cpu().numpy()
        return probabilities

    def classify(self, files: Sequence[str | Path]) -> list[tuple[str, float]]:
        """Return each image file's class and its probability, in their order.

        Raises:
            UserError: a file is no readable PNG or JPEG image, or one name was given and not a list.
        """
        if isinstance(files, (str, Path)):
            raise UserError(
                f"files is {str(files)!r}; allowed: a list of image files; give [{str(files)!r}]."
            )
        card = self.card
        answers: list[tuple[str, float]] = []
        for start in range(0, len(files), BATCH):
            chosen = files[start : start + BATCH]
            images = [read_image(Path(file), card.image_size, card.channels) for file in chosen]
            for row in self.probabilities(np.stack(images)):
                answers.append((card.class_names[int(row.argmax())], float(row.max())))
        return answers
