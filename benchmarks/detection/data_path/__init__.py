"""From pictures on a disk to batches in the network's form, by DALI or by torchvision and PyTorch."""
