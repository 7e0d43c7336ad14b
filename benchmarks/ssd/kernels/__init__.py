"""Triton kernels for CUDA, each beside a plain PyTorch twin that is its definition. Nothing here is imported without
need."""
