"""The guide's TensorFlow part: the same rows, split, labels and shapes as the PyTorch one beside it."""
