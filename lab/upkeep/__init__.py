"""What keeps files of the repository current: lock, conda files, blocks of documents, notebooks."""
