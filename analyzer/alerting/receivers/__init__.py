"""Every kind of receiver, a file each. A file put here is found by itself: nothing else lists them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Tag

from analyzer.alerting.receivers.base import Receiver

DEFAULT_KIND = "alertmanager-webhook"


def _find() -> dict[str, type[Receiver]]:
    found: dict[str, type[Receiver]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Receiver) and "EXAMPLE" in vars(value):
                found[str(value.model_fields["kind"].default)] = value
    return dict(sorted(found.items()))


KINDS = _find()


def _kind_of(value: Any) -> Any:
    return value.get("kind", DEFAULT_KIND) if isinstance(value, dict) else getattr(value, "kind", DEFAULT_KIND)


# One of them, as the settings file describes it; without `kind` it is Alertmanager's webhook.
if TYPE_CHECKING:
    AnyReceiver = Receiver
else:
    AnyReceiver = Annotated[
        Union[tuple(Annotated[cls, Tag(kind)] for kind, cls in KINDS.items())],  # noqa: UP007
        Discriminator(
            _kind_of,
            custom_error_type="kind",
            custom_error_message="kind: expected one of {}".format(", ".join(KINDS)),
        ),
    ]
