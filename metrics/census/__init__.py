"""What the storage of a model tells before any spectrum: cheap, and without reading its weights."""
