"""Optimizers, one file each: parameters and settings in, a `torch.optim.Optimizer` out."""
