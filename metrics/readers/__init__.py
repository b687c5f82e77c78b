"""One file per weight format; each turns a file into tensors, lazily, executing nothing."""
