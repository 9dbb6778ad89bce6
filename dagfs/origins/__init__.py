"""Other ways to the bytes than the hub's API: DVC remotes and the tier that machines share."""
