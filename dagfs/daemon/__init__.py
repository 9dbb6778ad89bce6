"""The life of a mount: plan, build the rooms, go to the background, answer status, end cleanly."""
