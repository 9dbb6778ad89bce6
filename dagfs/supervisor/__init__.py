"""Keeps the kernel's descriptor while workers come and go: a worker that dies is a pause for programs, not an error."""
