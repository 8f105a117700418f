"""Attribution patching: gradients in place of patches, with certificates."""
