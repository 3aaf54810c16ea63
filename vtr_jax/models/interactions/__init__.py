"""How a text meets a video: one file a similarity head."""
