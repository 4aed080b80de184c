"""What losses are called with: checks of logits and targets, labels as one-hot tensors, voxels that do not count.

The values of labels are looked at on the CPU alone: on any other device every step would wait for them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_logits(logits: Tensor, activation: str) -> None:
    """ValueError unless logits are floats (B, K, *spatial) in 2D or 3D, with enough classes for the activation."""
    least = 2 if activation == "softmax" else 1
    wanted = f"floats (B, K, H, W) or (B, K, D, H, W), K >= {least}"
    if not isinstance(logits, Tensor):
        raise ValueError(f"logits: expected {wanted}, found {type(logits).__name__}")
    if not logits.is_floating_point() or logits.ndim not in (4, 5) or logits.shape[1] < least:
        raise ValueError(f"logits: expected {wanted}, found {logits.dtype} {tuple(logits.shape)}")


def check_target(target: Tensor, logits: Tensor, kind: str) -> None:
    """ValueError unless the target has a shape, a dtype and the device that fit the logits."""
    whole, spatial = tuple(logits.shape), tuple(logits.shape[2:])
    label_forms = [(whole[0], *spatial), (whole[0], 1, *spatial)]
    wanted = f"floats {whole}"
    if kind == "label":
        wanted = f"integers or bool {label_forms[0]} or {label_forms[1]}, or one-hot {whole}"
    if not isinstance(target, Tensor):
        raise ValueError(f"target: expected a {kind} target of {wanted}, found {type(target).__name__}")
    shape, is_float = tuple(target.shape), target.is_floating_point()
    one_number = kind == "label" and not is_float and shape in label_forms
    if not (one_number or (shape == whole and (is_float or kind == "label"))) or target.is_complex():
        raise ValueError(f"target: expected a {kind} target of {wanted}, found {target.dtype} {shape}")
    if target.device != logits.device:
        raise ValueError(f"target: expected a tensor on {logits.device}, found one on {target.device}")


def read_label(
    label: Tensor, scores: Tensor, classes: tuple[int, ...], ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """A label in any of its forms as one-hot (B, C, *spatial), and the voxels (B, 1, *spatial) that do not count.

    ``scores`` (B, K, *spatial) has the dtype that is wanted. With one class the label is a mask, 1 inside.
    """
    num_classes = scores.shape[1]
    if label.shape == scores.shape and (num_classes > 1 or label.is_floating_point()):
        ignored = _ignored_channels(label, ignore_index)
        check_classes("target", label, ignored, highest=1, ignore_index=ignore_index)
        return channels(label, classes).to(scores.dtype).contiguous(), ignored
    label = label.view(len(label), 1, *scores.shape[2:])                        # (B, 1, *spatial)
    ignored = equals(label, ignore_index)
    check_classes("target", label, ignored, highest=max(num_classes, 2) - 1, ignore_index=ignore_index)
    return one_hot(label, classes if num_classes > 1 else (1,), scores.dtype), ignored


def one_hot(label: Tensor, classes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Where a label (B, 1, *spatial) has each of the classes: (B, C, *spatial), 1 and 0."""
    if label.dtype != torch.bool and max(classes) > torch.iinfo(label.dtype).max:
        label = label.long()  # a number that the dtype cannot hold would be taken for another
    onehot = torch.empty((len(label), len(classes), *label.shape[2:]), dtype=dtype, device=label.device)
    for i, c in enumerate(classes):
        torch.eq(label[:, 0], c, out=onehot[:, i])
    return onehot


def check_classes(
    name: str, label: Tensor, ignored: Tensor | None, *, highest: int, ignore_index: int | None
) -> None:
    """ValueError that names a value outside 0 to ``highest``, on the CPU; no look at any other device."""
    if label.device.type != "cpu" or label.dtype == torch.bool or label.numel() == 0:
        return
    low, high = (value.item() for value in (label if ignored is None else label.masked_fill(ignored, 0)).aminmax())
    if not (low >= 0 and high <= highest):  # NaN is neither
        also = "" if ignore_index is None else f" or {ignore_index}, which is ignored"
        raise ValueError(f"{name}: expected classes 0 to {highest}{also}, found {low} to {high}")


def equals(tensor: Tensor, value: int | None) -> Tensor | None:
    """Where a tensor has a value; None where it cannot have it, since PyTorch would wrap -1 around to 255."""
    if value is None:
        return None
    if tensor.dtype != torch.bool and not tensor.is_floating_point():
        limits = torch.iinfo(tensor.dtype)
        if not limits.min <= value <= limits.max:
            return None
    return tensor == value


def channels(tensor: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Channels by number; without an index tensor, whose copy to the device would wait for it."""
    if classes == tuple(range(classes[0], classes[-1] + 1)):
        return tensor[:, classes[0] : classes[-1] + 1]
    return torch.stack([tensor[:, c] for c in classes], dim=1)


def _ignored_channels(onehot: Tensor, ignore_index: int | None) -> Tensor | None:
    """Ignored voxels (B, 1, *spatial) of a one-hot label: of that class, or with that number in a channel."""
    if ignore_index is not None and 0 <= ignore_index < onehot.shape[1]:
        return onehot[:, ignore_index : ignore_index + 1] > 0
    marked = equals(onehot, ignore_index)
    return None if marked is None else marked.any(dim=1, keepdim=True)
