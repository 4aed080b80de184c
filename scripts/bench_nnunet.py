"""Speed of a training step in nnU-Net v2: its own Dice + cross-entropy against trainers of the library, in turns."""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time

import numpy as np
import torch

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerBoundary", "nnUNetTrainerRRW", "nnUNetTrainerDiceBoundary")
LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
AIM = 1.1


def plans_of(patch: list[int], batch_size: int, width: int) -> dict:
    """Plans as nnU-Net makes them of ACDC, for patches of 2 or 3 axes."""
    ndim, stages = len(patch), 6
    strides = [[1] * ndim, *([([1] if ndim == 3 else []) + [2, 2] for _ in range(stages - 1)])]
    configuration = {
        "data_identifier": "bench", "preprocessor_name": "DefaultPreprocessor", "batch_size": batch_size,
        "patch_size": patch, "spacing": [10.0, 1.5625, 1.5625][-ndim:], "batch_dice": ndim == 2,
        "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages, "features_per_stage": [min(16 * width, width * 2**i) for i in range(stages)],
                "conv_op": f"torch.nn.modules.conv.Conv{ndim}d", "kernel_sizes": [[3] * ndim] * stages,
                "strides": strides, "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True, "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset001_bench", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager", "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "original_median_spacing_after_transp": [10.0, 1.5625, 1.5625], "continue_training": False,
        "configurations": {"2d" if ndim == 2 else "3d_fullres": configuration},
    }


def make_trainer(name: str, patch: list[int], batch_size: int, width: int, device: torch.device):
    """A trainer of nnU-Net or of the library, initialised, without data."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from boundary_loss.integrations import nnunet

    description = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"}
    kind = nnUNetTrainer if name == "nnUNetTrainer" else getattr(nnunet, name)
    with contextlib.redirect_stdout(io.StringIO()):
        configuration = "2d" if len(patch) == 2 else "3d_fullres"
        trainer = kind(plans_of(patch, batch_size, width), configuration, 0, description, device)
        folder = trainer.preprocessed_dataset_folder
        os.makedirs(folder, exist_ok=True)
        open(os.path.join(folder, "case.b2nd"), "wb").close()
        torch.manual_seed(0)
        trainer.initialize()
        if name != "nnUNetTrainer":
            trainer.loss.loss.set_epoch(trainer.num_epochs // 2)
    trainer.network.train()
    return trainer


def make_batch(trainer, patch: list[int], batch_size: int) -> dict:
    """Noise, and nested balls of three classes at each scale, as nnU-Net's loader gives them."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in patch], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    label = torch.from_numpy(np.digitize(radius, [0.2, 0.3, 0.4])).to(torch.int16)
    label = (3 - label).expand(batch_size, 1, *patch)
    targets = []
    for scale in trainer._get_deep_supervision_scales():
        step = [round(1 / factor) for factor in scale]
        targets.append(label[(slice(None), slice(None), *(slice(None, None, s) for s in step))].contiguous())
    return {"data": torch.randn(batch_size, 1, *patch), "target": targets}


def measure(patch: list[int], batch_size: int, width: int, steps: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each step of each trainer, taken in turns."""
    trainers = {name: make_trainer(name, patch, batch_size, width, device) for name in TRAINERS}
    batch = make_batch(trainers["nnUNetTrainer"], patch, batch_size)
    times: dict[str, list[float]] = {name: [] for name in TRAINERS}
    for turn in range(steps + 1):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.train_step({"data": batch["data"], "target": list(batch["target"])})  # reads the loss: no wait left
            if turn:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="steps of each trainer")
    parser.add_argument("--width", type=int, default=32, help="channels at full resolution (nnU-Net's own: 32)")
    parser.add_argument("--batch-size", type=int, default=2, help="patches per step")
    parser.add_argument("--patch", type=int, nargs="+", default=[256, 256], help="2 or 3 axes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="where to train")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        variables = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        os.environ.update({name: os.path.join(folder, name) for name in variables})
        times = measure(args.patch, args.batch_size, args.width, args.steps, torch.device(args.device))
    own = times["nnUNetTrainer"]
    shape = f"patch {args.patch}, batch {args.batch_size}, width {args.width}"
    print(f"{shape}, {args.device}, medians of {args.steps} steps")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, own, strict=True))
        print(f"{name:28s} {statistics.median(found):9.1f} ms  {ratio:.3f} of nnU-Net's own (aim at most {AIM})")


if __name__ == "__main__":
    main()
