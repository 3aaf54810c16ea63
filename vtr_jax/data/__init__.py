"""Host work: annotation files, videos and captions in; frames and token ids out."""
