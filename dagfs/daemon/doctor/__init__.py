"""`dagfs doctor`: what stands between this machine and a mount, each finding with what to do about it."""
