"""What maintainers run: the lock, the conda files, the README table, stripped notebooks."""
