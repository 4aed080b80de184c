"""The losses inside other frameworks, each imported on demand: `monai` and `nnunet`."""
