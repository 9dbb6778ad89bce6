"""An aesthetics predictor trained on image embeddings: ordinary PyTorch on ordinary paths."""
