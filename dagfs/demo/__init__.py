"""`dagfs demo`: a small real repository, served, mounted and trained on."""
