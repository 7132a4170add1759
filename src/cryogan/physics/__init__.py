"""The image-formation model as pure functions on batched tensors."""
