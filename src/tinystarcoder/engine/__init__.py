"""Running a checkpoint: the decoder protocol and the decoders behind it."""
